"""Rows of a comparison that nothing is trained for."""

from pathlib import Path
from typing import Any

import yaml

from dove.baselines.cosines import Cosines, CosinesConfig
from dove.baselines.flat_colour import FlatColour, FlatColourConfig
from dove.checkpoint import write_files
from dove.data.images import open_images
from dove.paper.bench import Row
from dove.processor import ImageProcessor
from dove.training.presets import get_preset
from dove.training.setup import sample_images, split_holdout


def fit_row(row: Row, data: str, folder: Path) -> None:
    """Write the checkpoint of a row, and beside it what it was fitted to.

    Cosines have the numbers a token and the target of the preset that the row is like. Images that trainings hold out are
    left out here, too.
    """
    assert row.like
    preset: Any = get_preset(row.like)
    model, size = preset.model, preset.model.vqgan.image_size
    if row.fit == "flat-colour":
        FlatColour(FlatColourConfig(image_size=size)).save_pretrained(folder)
        return
    kept = split_holdout(open_images(data, on_error="skip"), preset.run.holdout)[0]
    images = sample_images(kept, ImageProcessor(size))
    config = CosinesConfig(
        image_size=size, max_tokens=model.max_tokens, token_dim=model.token_dim, quality_target=model.quality_target
    )
    Cosines.fit(config, images).save_pretrained(folder)
    write_files(folder.parent, {"config.yaml": yaml.safe_dump({"data": data}).encode()})
