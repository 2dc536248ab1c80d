"""Viewers of curves and sample pictures beside metrics.jsonl: TensorBoard, Weights & Biases, trackio, or none."""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dove.errors import UserError

PROJECT = "dove"


class Tracker:
    """Viewer of curves and sample pictures; this one shows nothing."""

    def __init__(self, output: Path, start: int):
        pass

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Show the scalars of a step."""

    def picture(self, step: int, name: str, image: Float[Tensor, "3 H W"]) -> None:
        """Show a picture in [0, 1]."""

    def close(self) -> None:
        """Write out what is left."""


class _TensorBoard(Tracker):
    """Event files in ``OUTPUT/tensorboard``; what an earlier run logged after ``start`` is purged."""

    def __init__(self, output: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(output / "tensorboard"), purge_step=start + 1)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Float[Tensor, "3 H W"]) -> None:
        self.writer.add_image(name, image, step)

    def close(self) -> None:
        self.writer.close()


class _OneRun(Tracker):
    """Weights & Biases' functions, which trackio has under the same names; each logs to the run begun last."""

    def __init__(self, package: str, output: Path, start: int, **settings: Any):
        try:
            self.package: Any = import_module(package)
        except ImportError as error:
            raise UserError(f"run.log={package} needs {package}; install it with: pip install {package}") from error
        self.package.init(project=PROJECT, name=output.resolve().name, config={"start": start}, **settings)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        self.package.log(values, step=step)

    def picture(self, step: int, name: str, image: Float[Tensor, "3 H W"]) -> None:
        pixels = image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        self.package.log({name: self.package.Image(pixels)}, step=step)

    def close(self) -> None:
        self.package.finish()


def _wandb(output: Path, start: int) -> Tracker:
    """Files in ``OUTPUT/wandb``, uploaded by ``wandb sync``, or at once with WANDB_MODE=online."""
    return _OneRun("wandb", output, start, dir=str(output), mode=os.environ.get("WANDB_MODE", "offline"))


TRACKERS: dict[str, Callable[[Path, int], Tracker]] = {
    "none": Tracker,
    "tensorboard": _TensorBoard,
    "wandb": _wandb,
    "trackio": partial(_OneRun, "trackio"),
}
