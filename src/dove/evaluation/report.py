"""Reports of evaluations: rows, provenance and files."""

import csv
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dove
from dove.evaluation.common import Images, Subject, load_subjects, make_slug
from dove.evaluation.options import EvaluationOptions
from dove.runtime import installed_version, save_outputs

VERSIONED = ("torch", "torchvision", "transformers", "diffusers", "numpy", "scipy", "scikit-learn", "pillow")


def cache_folder(name: str) -> Path:
    """Locate the cache of evaluations, below the environment variable DOVE_CACHE's folder, else below ``~/.cache/dove``."""
    return Path(os.environ.get("DOVE_CACHE") or "~/.cache/dove").expanduser() / name


def summarise_provenance(origin: Mapping[str, Any]) -> str:
    """Summarise the provenance in one line."""
    models = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in origin["models"].items())
    data = ", ".join(f"{item['images']} images {item['sha256'][:12]}" for item in origin["data"].values())
    commit = (origin["commit"] or "unknown")[:12]
    packages = origin["versions"]
    of_data = f"{data} · " if data else ""  # speed reads none
    return (
        f"commit {commit} · {models} · {of_data}seed {origin['seed']} · dove {packages['dove']}, "
        f"torch {packages.get('torch')} · {origin['hardware']['device']} · {origin['seconds']:g} s"
    )


def git_commit() -> str | None:
    """Look up the commit of the package's sources, with ``-dirty`` appended where they were changed; None outside git."""
    package = Path(dove.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed copy may lie inside somebody else's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """List the versions of Python, this package and the libraries that it computes with."""
    found = {package: installed_version(package) for package in VERSIONED}
    own = {"python": platform.python_version(), "dove": dove.__version__}
    return own | {package: number for package, number in found.items() if number}


def hardware() -> dict[str, Any]:
    """Describe the machine, as far as it matters to a measurement."""
    processor = _processor_name()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {"device": gpu or f"{processor}, {threads} thread{'s' if threads > 1 else ''}", "cpu": processor, "gpu": gpu}


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def clean(value: Any) -> Any:
    """Convert a value for JSON: numbers that are not finite become None, arrays and numpy scalars plain Python."""
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as CSV with one column for every key that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def rows_to_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as a table for a terminal."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class EvaluationRun:
    """A run of an evaluation command, from its start to its files.

    Attributes:
        subjects: models that the report names.
        data: images by their role in the report.
    """

    def __init__(self, options: EvaluationOptions):
        self.options, self.started = options, time.time()
        self.subjects: list[Subject] = []
        self.data: dict[str, Images] = {}

    def load(self) -> tuple[list[Subject], Images]:
        """Load the models and open the images that the options name."""
        self.subjects = load_subjects(self.options.model, self.options.device)
        self.data = {"data": Images(self.options.data, limit=self.options.limit, seed=self.options.seed)}
        return self.subjects, self.data["data"]

    def suffix(self, model: str) -> str:
        """Give what a model's own files have behind their names: its name, or nothing where it is the only model."""
        return f"-{make_slug(model)}" if len({*self.options.model}) > 1 else ""

    def finish(self, report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Write a report and pictures, then report images that were left out.

        Raises:
            UserError: If a file cannot be written or images were left out.
        """
        models = {subject.name: subject.sha256 for subject in self.subjects}
        self.write(report, pictures, models, {role: images.origin() for role, images in self.data.items()})
        for images in self.data.values():
            images.complain()

    def write(
        self,
        report: Mapping[str, Any],
        others: Mapping[str, bytes],
        models: Mapping[str, str],
        data: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Write a report with its provenance as JSON, its ``rows`` as CSV and other files, and print the paths.

        Args:
            report: what the JSON holds beside the provenance.
            others: contents of further files, such as pictures, by name.
            models: SHA-256 of each model by its name in the report.
            data: what the data are, with their number of ``images`` and ``sha256``, by their role.

        Raises:
            UserError: If a file cannot be written.
        """
        origin = {
            "command": shlex.join(["dove", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 1),
            "commit": git_commit(),
            "models": models,
            "data": data,
            "seed": self.options.seed,
            "versions": versions(),
            "hardware": hardware(),
        }
        cleaned, name = clean({**report, "provenance": origin}), self.options.name
        contents = {
            f"{name}.json": (json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n").encode(),
            f"{name}.csv": rows_to_csv(cleaned["rows"]),
            **others,
        }
        save_outputs({self.options.output / file: content for file, content in contents.items()})
        print(summarise_provenance(origin))
        print(f"wrote {', '.join(contents)} to {self.options.output}")
