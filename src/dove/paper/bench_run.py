"""Train the rows of a comparison: one after the other, past those that fail."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from dove.errors import UserError
from dove.flags import require_least
from dove.paper.bench import IMAGES, Comparison, Row, load_rows, squeezenet_file
from dove.training.presets import get_preset


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train systems to compare, at a small size on equal data; what is trained is skipped, what was cut off goes on."""

    comparison: Annotated[Comparison, tyro.conf.Positional] = "bench"
    """bench: every system of the paper at 32 px, with 1.5 million parameters each. ablation: the recipe of dove-tiny at 32 px
    without one of its parts at a time."""
    data: str = ""
    """Training images: a folder, parquet, WebDataset shards, or a hub dataset id."""
    squeezenet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0 weights for the perceptual loss; without it, the file that DOVE_SQUEEZENET names in the environment."""
    output: Path | None = None
    """Folder for the trainings, one folder each; by default results/bench or results/ablation."""
    only: tuple[str, ...] = ()
    """Names of the trainings to run; by default all."""
    images: int | None = None
    """Images that each training sees, repetitions included; by default 200,000, in the ablation 100,000."""
    seed: int = 0
    """Seed of every training; give another --output, too."""
    dry_run: bool = False
    """Print the commands without running them."""

    def __post_init__(self) -> None:
        require_least("--images", self.images)

    @property
    def share(self) -> float:
        """Share of the presets' images."""
        full = IMAGES[self.comparison]
        return (self.images or full) / full

    @property
    def folder(self) -> Path:
        """Folder for the trainings."""
        return self.output or Path("results") / self.comparison


def run_bench(options: TrainOptions) -> int:
    """Make the rows that are not there and return 1 if one fails, else 0.

    A row that fails is told in a line, rows that need it are left out, and the others go on.
    """
    rows = load_rows(options.only, options.comparison)
    squeezenet = squeezenet_file(options.squeezenet)
    if not options.data:
        raise UserError("a comparison needs --data with training images")
    if not squeezenet or not squeezenet.is_file():
        wrong = f"there is no file {squeezenet}" if squeezenet else "a comparison needs SqueezeNet 1.0 weights"
        raise UserError(f"{wrong}; pass --squeezenet FILE, or name it in DOVE_SQUEEZENET")
    if not options.dry_run:
        from dove.data.images import open_images

        open_images(options.data)  # what cannot be opened is told once, in front of all rows
    failed: list[str] = []
    for row in rows:
        if row.done(options.folder, options.share):
            print(f"{row.name}: done")
            continue
        if reason := make_row(row, options, squeezenet):
            failed.append(row.name)
            print(f"{row.name} failed: {reason}; the other rows go on", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(rows)} rows failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0


def make_row(row: Row, options: TrainOptions, squeezenet: Path) -> str | None:
    """Train or fit a row, from its last checkpoint if there is one, and return the reason if that fails."""
    for needed in load_rows([row.needs], options.comparison) if row.needs and not options.dry_run else ():
        if not needed.done(options.folder, options.share):
            return f"it builds on {row.needs}, which is not finished"
    if row.fit:
        print(f"{row.name}: fitted to images of {options.data}", flush=True)
        if not options.dry_run:
            fit_row(row, options.data, row.model(options.folder))
        return None
    command = row.command(options.folder, options.data, squeezenet, share=options.share, seed=options.seed)
    print(f"$ dove {shlex.join(command)}", flush=True)
    if options.dry_run:
        return None
    # A process each: a training leaves its threads, its seeds and its accelerator settings behind.
    status = subprocess.run([sys.executable, "-m", "dove", *command], check=False).returncode
    return f"dove train ended with status {status}" if status else None


def fit_row(row: Row, data: str, folder: Path) -> None:
    """Write the checkpoint of a row that nothing is trained for, and beside it what it was fitted to.

    Cosines have the numbers a token and the target of the preset that the row is like. Images that trainings hold out are
    left out here, too.
    """
    from dove.baselines.cosines import Cosines, CosinesConfig
    from dove.baselines.flat_colour import FlatColour, FlatColourConfig
    from dove.checkpoint import write_files
    from dove.data.images import open_images
    from dove.processor import ImageProcessor
    from dove.training.setup import sample_images, split_holdout

    assert row.like
    preset: Any = get_preset(row.like)
    model, size = preset.model, preset.model.vqgan.image_size
    if row.fit == "flat-colour":
        FlatColour(FlatColourConfig(image_size=size)).save_pretrained(folder)
        return
    kept = split_holdout(open_images(data, on_error="skip"), preset.run.holdout)[0]
    config = CosinesConfig(
        image_size=size, max_tokens=model.max_tokens, token_dim=model.token_dim, quality_target=model.quality_target
    )
    Cosines.fit(config, sample_images(kept, ImageProcessor(size))).save_pretrained(folder)
    write_files(folder.parent, {"config.yaml": yaml.safe_dump({"data": data}).encode()})
