"""A saved untrained tokenizer and folders of pictures for the commands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dove.tokenizer import Dove


@pytest.fixture
def checkpoint(tiny_dove: Dove, tmp_path: Path) -> str:
    tiny_dove.save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures of 20 x 24 px in two folders."""
    generator = np.random.default_rng(0)
    for number in range(7):
        path = tmp_path / "photos" / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        corners = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        corners.resize((20, 24), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"
