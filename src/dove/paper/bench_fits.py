"""Rows of the bench that nothing is trained for."""

from pathlib import Path
from typing import Any

import yaml

from dove.baselines.cosines import Cosines, CosinesConfig
from dove.baselines.flat_colour import FlatColour, FlatColourConfig
from dove.checkpoint import write_files
from dove.data.images import open_images
from dove.processor import ImageProcessor
from dove.training.presets import PRESETS
from dove.training.setup import sample_images, split_holdout

BENCH: Any = PRESETS["dove-bench"]
DOVE = BENCH.model
SIZE = DOVE.vqgan.image_size


def fit_row(kind: str, data: str, folder: Path) -> None:
    """Write the checkpoint of a row, and beside it what it was fitted to.

    Args:
        kind: flat-colour, or cosines with as many numbers a token as the DOVE beside it.
        data: source of training images, of which the trainings' held-out ones are left out here, too.
        folder: the checkpoint's.
    """
    if kind == "flat-colour":
        FlatColour(FlatColourConfig(image_size=SIZE)).save_pretrained(folder)
        return
    images = sample_images(
        split_holdout(open_images(data, on_error="skip"), BENCH.run.holdout)[0], ImageProcessor(SIZE)
    )
    config = CosinesConfig(image_size=SIZE, max_tokens=DOVE.max_tokens, token_dim=DOVE.token_dim, quality_target=20.0)
    Cosines.fit(config, images).save_pretrained(folder)
    write_files(folder.parent, {"config.yaml": yaml.safe_dump({"data": data}).encode()})
