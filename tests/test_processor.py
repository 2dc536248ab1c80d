"""Pictures to model input and back."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dove.errors import UserError
from dove.processor import ImageProcessor


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_kinds_of_input_agree(tmp_path: Path) -> None:
    array = noise(16, 16)
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    expected = torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1
    process = ImageProcessor(16)
    for image in (array, Image.fromarray(array), path, str(path), path.read_bytes(), array / 255.0, array[None]):
        assert torch.allclose(process(image), expected, atol=1e-6)
    with path.open("rb") as file:
        assert torch.allclose(process(file), expected, atol=1e-6)
    batch = process([path, array, io.BytesIO(path.read_bytes())])
    assert batch.shape == (3, 3, 16, 16)
    assert batch.dtype == torch.float32
    assert torch.allclose(batch, expected.expand(3, -1, -1, -1), atol=1e-6)


def test_round_trip_is_exact() -> None:
    process, images = ImageProcessor(16), [noise(16, 16), 255 - noise(16, 16)]
    for before, after in zip(images, process.to_pil(process(images)), strict=True):
        assert (np.asarray(after) == before).all()


def test_to_pil_clamps_and_takes_one_picture() -> None:
    picture = torch.stack([torch.full((4, 5), value) for value in (-3.0, 0.0, 3.0)])
    (image,) = ImageProcessor(4).to_pil(picture.bfloat16().requires_grad_())
    assert image.size == (5, 4)
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_central_square_keeps_its_pixels() -> None:
    array = noise(16, 31)
    pixels = ImageProcessor(16)(array)[0]
    assert torch.equal(pixels, ImageProcessor(16)(array[:, 7:23])[0])


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255
    assert ImageProcessor(16)(stripes).abs().max() < 0.05


@settings(deadline=None, max_examples=30)
@given(width=st.integers(1, 60), height=st.integers(1, 60), size=st.integers(1, 40))
def test_every_size_works(width: int, height: int, size: int) -> None:
    pixels = ImageProcessor(size)(np.full((height, width, 3), 200, np.uint8))
    assert pixels.shape == (1, 3, size, size)
    assert (pixels - (200 / 127.5 - 1)).abs().max() < 0.01


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert ImageProcessor(32)(Image.new("L", size, 255)).min() == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV"])
def test_every_mode(mode: str) -> None:
    assert ImageProcessor(8)(Image.new(mode, (9, 10))).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty list"),
        ([3], "type int"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 2.0), "scale them"),
        (np.full((4, 4), np.nan), "scale them"),
        ("none.png", "no such file"),
        (b"none", "not an image"),
    ],
)
def test_bad_input(images: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageProcessor(8)(images)


def test_bad_size() -> None:
    with pytest.raises(UserError, match="image_size=0 must be a whole number of pixels, at least 1"):
        ImageProcessor(0)
