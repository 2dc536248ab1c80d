"""Comparisons as data, each of rows trained by one trainer on equal data. Imports no torch.

``bench.yaml`` has every system of the paper at one small size, ``ablation.yaml`` this project's recipe without one of its
parts at a time; ``dove/configs`` has the settings of their trainings.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dove.errors import UserError
from dove.paper import load_yaml
from dove.training.presets import get_preset
from dove.training.progress import last_numbers, saved_step

Comparison = Literal["bench", "ablation"]
IMAGES: dict[Comparison, int] = {"bench": 200_000, "ablation": 100_000}
"""Images that the presets of a comparison's rows see."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a comparison; ``bench.yaml`` says what its fields mean."""

    name: str
    label: str | None = None
    preset: str | None = None
    fit: str | None = None
    like: str | None = None
    needs: str | None = None
    ships: str | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def adaptive(self) -> bool:
        """Tell whether it chooses a length for each image."""
        preset = get_preset(self.preset) if self.preset else None
        return self.fit == "cosines" or hasattr(getattr(preset, "model", None), "eos_head")

    def steps(self, share: float) -> int:
        """Steps of its training for a share of its images; 0 where nothing is trained."""
        return max(1, round(get_preset(self.preset).run.steps * share)) if self.preset else 0

    def command(self, bench: Path, data: str, squeezenet: Path, *, share: float = 1.0, seed: int = 0) -> list[str]:
        """Arguments of ``dove`` that train it, or go on where that was stopped."""
        assert self.preset
        flags = [flag.format(bench=bench, squeezenet=squeezenet) for flag in self.flags]
        given = dict(zip(self.flags, self.flags[1:], strict=False)).get("--loss.perceptual-network")
        loss = getattr(get_preset(self.preset), "loss", None)
        network = given or getattr(loss, "perceptual_network", "")  # none where targets are codes, not pixels
        if "squeezenet" in str(network):
            flags += ["--loss.perceptual-weights", str(squeezenet)]
        flags += ["--run.steps", str(self.steps(share)), "--run.seed", str(seed)]
        return ["train", "--preset", self.preset, "--data", data, "--output", str(bench / self.name), *flags]

    def model(self, bench: Path) -> Path:
        """Folder of its model."""
        return bench / self.name / "model"

    def trained(self, bench: Path) -> bool:
        """Tell whether a model is there, be it of a training that still runs."""
        return (self.model(bench) / "model.safetensors").is_file()

    def done(self, bench: Path, share: float = 1.0) -> bool:
        """Tell whether its training has come to its end; True of a fitted row whose model is there."""
        if not self.preset:
            return self.trained(bench)
        steps, step = self.steps(share), int(last_numbers(bench / self.name).get("step", 0))
        # A training that is killed between its last line of metrics and its last checkpoint has an older model.
        saved = saved_step(bench / self.name)
        return step >= steps and (saved is None or saved >= steps) and self.trained(bench)


def load_rows(only: Sequence[str] = (), comparison: Comparison = "bench") -> list[Row]:
    """Read the rows of a comparison, in an order in which each finds what it builds on."""
    rows = [Row(**row) for row in load_yaml(f"{comparison}.yaml")]
    names = [row.name for row in rows]
    if unknown := [name for name in only if name not in names]:
        raise UserError(f"no training {', '.join(unknown)}; there are {', '.join(names)}")
    return [row for row in rows if not only or row.name in only]


def squeezenet_file(given: Path | None) -> Path | None:
    """Give SqueezeNet's weights: the file of a flag, else the one that DOVE_SQUEEZENET names, if any."""
    named = os.environ.get("DOVE_SQUEEZENET")
    return given or (Path(named) if named else None)


def trained_models(bench: Path) -> tuple[list[str], list[str]]:
    """LABEL=CHECKPOINT of the rows that are trained or ship, and the labels of those that are neither."""
    rows = [row for row in load_rows() if row.label]
    there = {row.label: str(row.model(bench)) if row.trained(bench) else row.ships for row in rows}
    return [f"{label}={model}" for label, model in there.items() if model], [str(k) for k, v in there.items() if not v]
