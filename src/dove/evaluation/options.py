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
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"--output {self.output} is a file; pass a folder")
