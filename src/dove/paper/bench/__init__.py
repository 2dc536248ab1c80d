"""The bench: every system of the paper at one small size, trained by one trainer on equal data.

64 px, K = 64, about 4.8 million parameters each (within 10%), one data set, one perceptual network and the same number of
images seen; ``rows.yaml`` lists the trainings and the other files are their settings.
"""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training."""

    name: str
    """Of its settings file and of its folder."""
    label: str | None = None
    """In tables; None for a stage that others build on."""
    flags: list[str] = field(default_factory=list)
    """Further flags of ``dove train``; {bench} is the folder of all trainings."""

    @property
    def settings(self) -> Path:
        """Its settings, for ``dove train --config``."""
        return Path(str(files(__name__) / f"{self.name}.yaml"))

    @property
    def preset(self) -> str:
        """What its settings start from."""
        return str(yaml.safe_load(self.settings.read_text(encoding="utf-8"))["preset"])

    def command(self, bench: Path, data: str, squeezenet: Path) -> list[str]:
        """Arguments of ``dove`` that train it, or go on where that was stopped."""
        flags = [flag.format(bench=bench) for flag in self.flags]
        if not self.preset.endswith("-codes"):  # targets of these are codes, not pixels
            flags += ["--loss.perceptual-weights", str(squeezenet)]
        return ["train", "--config", str(self.settings), "--data", data, "--output", str(bench / self.name), *flags]

    def model(self, bench: Path) -> Path:
        """Folder of the trained model."""
        return bench / self.name / "model"

    def trained(self, bench: Path) -> bool:
        """Whether a model is there, be it of a training that still runs."""
        return (self.model(bench) / "model.safetensors").is_file()


def load_rows() -> list[Row]:
    """All trainings, in an order in which each finds what it builds on."""
    rows = yaml.safe_load((files(__name__) / "rows.yaml").read_text(encoding="utf-8"))
    return [Row(**row) for row in rows]


def trained_models(bench: Path) -> tuple[list[str], list[str]]:
    """LABEL=FOLDER of the rows that are trained, and the labels of those that are not."""
    rows = [row for row in load_rows() if row.label]
    there = [f"{row.label}={row.model(bench)}" for row in rows if row.trained(bench)]
    return there, [str(row.label) for row in rows if not row.trained(bench)]
