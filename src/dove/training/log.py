"""Log of a training's numbers and pictures: metrics.jsonl, PNG files, and what shows curves."""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.utils import make_grid, save_image

from dove.checkpoint import write_files
from dove.training.trackers import TRACKERS

PREVIEW_SCALE = 2


class TrainingLog:
    """Writes into an output folder; one line of metrics.jsonl per logged step."""

    def __init__(self, output: Path, *, start: int, tracker: str = "tensorboard"):
        self.output = output
        self.metrics = output / "metrics.jsonl"
        self._drop_lines_after(start)
        self.tracker = TRACKERS[tracker](output, start)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Append one line, and show the same scalars."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.tracker.numbers(step, values)

    def pictures(self, step: int, images: Float[Tensor, "B 3 S S"], previews: dict[str, Tensor]) -> Path:
        """Draw a grid with a column per image: the original, and below it each kind of reconstruction; all in [-1, 1]."""
        rows = torch.cat([images, *previews.values()]).clamp(-1, 1).add(1).div(2)
        rows = rows.repeat_interleave(PREVIEW_SCALE, dim=2).repeat_interleave(PREVIEW_SCALE, dim=3)
        grid = make_grid(rows, nrow=len(images), padding=2, pad_value=1.0)
        path = self.output / "samples" / f"step-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        save_image(grid, path)
        self.tracker.picture(step, "samples", grid)
        return path

    def _drop_lines_after(self, step: int) -> None:
        """Drop the lines of steps that the last checkpoint of a killed run has not; they will come again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        # At once or not at all: a kill between emptying the file and filling it would lose the whole curve.
        write_files(self.output, {self.metrics.name: "".join(line + "\n" for line in kept).encode()})
