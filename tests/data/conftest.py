"""Pictures and folders shared by the tests of the data package."""

from pathlib import Path

import pytest
from pictures import encode, gradient, png_header
from PIL import Image


@pytest.fixture
def photo() -> Image.Image:
    """24 x 16 pixels."""
    return Image.fromarray(gradient())


@pytest.fixture
def photos() -> list[bytes]:
    """Six encoded pictures, each of one grey level of its own."""
    return [encode(Image.new("RGB", (20, 20), (level, level, level))) for level in range(0, 240, 40)]


@pytest.fixture
def mixed_folder(tmp_path: Path, photos: list[bytes]) -> Path:
    """Four readable pictures among four that are not, and a text file that nobody asked for."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, data in enumerate(photos[:4]):
        (folder / f"{number}-good.png").write_bytes(data)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(30_000, 30_000))
    (folder / "text.png").write_text("no image")
    (folder / "truncated.png").write_bytes(encode(Image.fromarray(gradient(64, 64)))[:-60])
    (folder / "notes.txt").write_text("ignored")
    return folder
