"""Options of all evaluations. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from dove.errors import UserError
from dove.flags import require_least


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of all evaluations."""

    name: ClassVar[str]
    """Name of the files that the evaluation writes."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")]
    """Images: a folder, files, parquet, .tar shards or a hub dataset."""
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...")] = ("dove-tiny",)
    """Shipped checkpoints, checkpoint folders or hub ids; each gets its own rows."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Greatest number of images, drawn at random from the source by the seed."""
    output: Path = Path("results")
    """Folder for the report and the pictures."""
    seed: int = 0
    """Seed of every random choice."""
    batch_size: int = 64
    """Number of images at a time."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        require_least("--batch-size", self.batch_size)
        require_least("--limit", self.limit)
        if not self.model:
            raise UserError("no model is given; pass --model with checkpoints, such as dove-tiny")
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"--output {self.output} is a file; pass a folder")


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(EvaluationOptions):
    """Compare the quality that a model predicts with what it reaches, and the policies that trust it with others.

    Writes calibration.json, .csv (a row for each measured length: predicted and measured PSNR, mean absolute error and
    correlation; a row for each policy: "budget n" beside "fixed n" and "known n", which spends by the measured errors)
    and calibration.png. ``share_of_known`` is the part of the gain of "known n" over "fixed n" that "budget n" gets.
    """

    name = "calibration"

    lengths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
    """Numbers of tokens to measure at, besides 1 and all; errors in between are interpolated for "known n"."""
    psnr: Annotated[tuple[float, ...], tyro.conf.arg(metavar="DB...")] = (20.0, 22.0, 24.0, 26.0, 28.0)
    """Values of x for psnr>=x and its search by decoding."""
    budgets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="N...")] = (4.0, 8.0, 16.0, 32.0)
    """Means of n tokens over all the images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(value > 0 for value in self.psnr):
            raise UserError("--psnr takes decibels above 0")


@dataclass(frozen=True, kw_only=True)
class RateOptions(EvaluationOptions):
    """Round tokens to levels, price them as an arithmetic coder would, and compare with JPEG and WebP files.

    Writes rate.json, .csv and rate.png. The levels' distribution is fitted to training images, never to the images that
    are measured.
    """

    name = "rate"

    train_data: str = ""
    """Images that the distribution of the levels is fitted to (folder, tar, parquet or hub data set)."""
    train_limit: int = 500
    """At most so many of them, drawn at random."""
    num_tokens: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (8, 16, 32, 64)
    fineness: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X...")] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    """Steps of the levels, measured in the picture: the root of summed squared pixels in [-1, 1]."""
    qualities: Annotated[tuple[int, ...], tyro.conf.arg(metavar="Q...")] = (5, 10, 20, 35, 50, 70, 85, 95)
    """Quality settings of JPEG and WebP."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_data:
            raise UserError("no training images are given; pass --train-data")
        if not all(value > 0 for value in self.fineness):
            raise UserError("--fineness takes steps above 0")
        if not all(1 <= value <= 100 for value in self.qualities):
            raise UserError("--qualities are from 1 to 100")
