"""Reports of evaluations as verdicts on the paper's claims read them: a folder for each seed. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from dove.data.json_files import read_json
from dove.errors import UserError, one_line

FLAT, COSINES = "flat colour", "cosines"  # Labels of the rows that nothing is learned for
LEAST_GAIN = 1.0  # Decibels above the flat colour below which a model counts as not learned
NOTES = "notes.yaml"  # File in a folder of reports: by the claim's id, what was found out about its verdict

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reports:
    """Rows of all seeds, and where they come from."""

    lists: Mapping[tuple[str, str], Sequence[tuple[int, Row]]]  # By report and name of the list: rows with their seeds
    origins: Sequence[Mapping[str, Any]]
    notes: Mapping[str, str] = field(default_factory=dict)

    def rows(self, report: str, model: str, key: str = "rows") -> Iterator[tuple[int, Row]]:
        """Iterate over the rows of a model with their seeds."""
        return ((seed, row) for seed, row in self.lists.get((report, key), ()) if row.get("model") == model)

    def values(self, report: str, model: str, column: str, where: Row, key: str = "rows") -> list[float]:
        """Collect a column's value of each seed from the rows that have all of ``where``."""
        by_seed: dict[int, float] = {}
        for seed, row in self._having(report, model, column, where, key):
            by_seed.setdefault(seed, float(row[column]))
        return [by_seed[seed] for seed in sorted(by_seed)]

    def lengths(self, report: str, model: str, column: str, where: Row, key: str = "rows") -> list[int]:
        """List the fixed numbers of tokens at which a model has a column, in rising order."""
        matching = [row.get("num_tokens") for _, row in self._having(report, model, column, where, key)]
        return sorted({length for length in matching if isinstance(length, int)})

    def _having(self, report: str, model: str, column: str, where: Row, key: str) -> Iterator[tuple[int, Row]]:
        for seed, row in self.rows(report, model, key):
            if row.get(column) is not None and all(row.get(name) == value for name, value in where.items()):
                yield seed, row

    def models(self) -> list[str]:
        """List the models whose reconstructions were measured, in the order of the reports."""
        return list(dict.fromkeys(str(row["model"]) for _, row in self.lists.get(("reconstruction", "rows"), ())))

    def learned(self, model: str) -> bool | None:
        """Tell whether a model is clearly above the flat colour at its greatest fixed number of tokens, at every seed.

        None where that is not known: its reconstructions or those of a flat colour of their size have not been measured.
        """
        floors: dict[int | None, list[float]] = {}
        for _, row in self.rows("reconstruction", FLAT):
            floors.setdefault(row.get("image_size"), []).append(row["psnr"])
        rows = [row for _, row in self.rows("reconstruction", model)]
        fixed = [row for row in rows if isinstance(row["num_tokens"], int) and "psnr" in row]
        longest = max((row["num_tokens"] for row in fixed), default=0)
        gains = [
            row["psnr"] - mean(floors[row.get("image_size")])
            for row in fixed
            if row["num_tokens"] == longest and row.get("image_size") in floors
        ]
        return min(gains) >= LEAST_GAIN if gains else None


def read_reports(folders: Sequence[Path]) -> Reports:
    """Read all reports below some folders, each of which holds one seed, and their notes.

    Raises:
        UserError: for a folder or file that cannot be read, and for one training in two folders.
    """
    lists: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    origins: list[Mapping[str, Any]] = []
    notes: dict[str, str] = {}
    trained: dict[tuple[str, str], Path] = {}
    for seed, folder in enumerate(folders):
        if not folder.is_dir():
            raise UserError(f"--reports {folder} is no folder; dove paper evaluate bench makes one")
        notes |= read_notes(folder / NOTES)
        for file in sorted(folder.rglob("*.json")):
            report = read_json(file)
            if not isinstance(report, dict) or "provenance" not in report:
                continue
            name = f"{folder.name}/{file.relative_to(folder).with_suffix('')}"
            origins.append({"report": name, **report["provenance"]})
            if file.stem == "reconstruction":
                refuse_twice(trained, folder, report["provenance"]["models"])
            for key, rows in report.items():
                if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                    lists.setdefault((file.stem, key), []).extend((seed, row) for row in rows)
    return Reports(lists, origins, notes)


def refuse_twice(trained: dict[tuple[str, str], Path], folder: Path, models: Mapping[str, str]) -> None:
    """Refuse trained models whose weights another folder has measured; ``trained`` has the folder of each that was seen."""
    for name, sha256 in models.items():
        if name not in (FLAT, COSINES) and (other := trained.setdefault((name, sha256), folder)) != folder:
            raise UserError(
                f"--reports {other} and {folder} measure the same weights of {name}, which would count as two seeds; "
                "give each training once"
            )


def read_notes(file: Path) -> dict[str, str]:
    """Read what a file says of claims, by their ids; nothing where there is no file."""
    if not file.is_file():
        return {}
    try:
        notes = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}; mend or delete it") from error
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise UserError(f"{file} has to hold a text for each id of a claim, such as 'lengths: ...'")
    return notes
