"""Pictures with a colour profile have the colours that it says, whoever reads them."""

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode, gradient
from PIL import Image, ImageCms
from profiles import ADOBE_RGB, DISPLAY_P3, SRGB, grey_profile, in_srgb, matrix_profile

from dove.data.dataset import Record
from dove.data.images import open_images, read_image, to_rgb
from dove.processor import ImageProcessor

SPACES = {"Display P3": (DISPLAY_P3, 2.2), "Adobe RGB": (ADOBE_RGB, 2.2)}
COLOUR = (60, 190, 70)
levels = st.tuples(*[st.integers(0, 255)] * 3)


def flat(colour: tuple[int, ...] = COLOUR, size: int = 8) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def centre(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[image.height // 2, image.width // 2].astype(int)


@pytest.mark.parametrize("space", SPACES)
@given(colour=levels)
def test_colours_are_those_of_the_profile(space: str, colour: tuple[int, int, int]) -> None:
    found = centre(read_image(encode(flat(colour), icc_profile=matrix_profile(*SPACES[space]))))
    # Next to black the linear foot of sRGB's curve is met by tables of limited depth.
    assert np.abs(found - in_srgb(colour, *SPACES[space])).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_format_with_profiles(kind: str) -> None:
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    found = centre(read_image(encode(flat(), kind, icc_profile=matrix_profile(ADOBE_RGB, 2.2), **lossless)))
    expected = in_srgb(COLOUR, ADOBE_RGB, 2.2)
    assert np.abs(found - expected).max() <= 3
    assert np.abs(np.array(COLOUR) - expected).max() > 50


def test_srgb_in_other_words_changes_no_pixel() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(gradient())
    assert (np.asarray(read_image(encode(picture, icc_profile=own))) == gradient()).all()


@pytest.mark.parametrize("source", ["folder", "parquet", "tar", "image", "array"])
def test_every_reader_converts_once(source: str, tmp_path: Path) -> None:
    data = encode(flat(size=16), icc_profile=matrix_profile(DISPLAY_P3, 2.2))
    if source == "folder":
        (tmp_path / "a.png").write_bytes(data)
    elif source == "parquet":
        pq.write_table(pa.table({"image": [{"bytes": data, "path": None}]}), tmp_path / "a.parquet")
    elif source == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    if source in ("image", "array"):
        image = Image.open(io.BytesIO(data))
        given = image if source == "image" else np.asarray(to_rgb(image))
    else:
        record = open_images(tmp_path)[0]
        assert isinstance(record, Record)
        given = record.image
    found = (ImageProcessor(16)(given)[0, :, 8, 8].numpy() + 1) * 127.5
    assert np.abs(found - in_srgb(COLOUR, DISPLAY_P3, 2.2)).max() <= 3


def test_the_profile_is_gone_from_what_was_read() -> None:
    for profile in (matrix_profile(SRGB, 2.2), matrix_profile(ADOBE_RGB, 2.2), b"nothing"):
        assert "icc_profile" not in read_image(encode(flat(), icc_profile=profile)).info


def test_transparency_and_profile() -> None:
    picture = flat().convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 4 + [255] * 4]), 8, 0)))
    found = np.asarray(read_image(encode(picture, icc_profile=matrix_profile(ADOBE_RGB, 2.2)))).astype(int)
    assert (found[:, :4] == 255).all()
    assert np.abs(found[:, 4:] - in_srgb(COLOUR, ADOBE_RGB, 2.2)).max() <= 3


def test_palette_and_profile() -> None:
    found = read_image(encode(flat().quantize(4), icc_profile=matrix_profile(ADOBE_RGB, 2.2)))
    assert np.abs(centre(found) - in_srgb(COLOUR, ADOBE_RGB, 2.2)).max() <= 3


def test_orientation_and_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(encode(flat().resize((24, 16)), icc_profile=matrix_profile(ADOBE_RGB, 2.2), exif=exif))
    assert image.size == (16, 24)
    assert np.abs(centre(image) - in_srgb(COLOUR, ADOBE_RGB, 2.2)).max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_a_profile_of_its_own(dtype: type) -> None:
    level = 100 if dtype == np.uint8 else 100 * 257
    image = Image.fromarray(np.full((8, 8), level, dtype))
    linear = (100 / 255) ** 1.0
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    found = centre(read_image(encode(image, icc_profile=grey_profile(1.0))))
    assert np.abs(found - expected).max() <= 2


def test_grey_under_a_profile_for_colours() -> None:
    found = centre(read_image(encode(Image.new("L", (8, 8), 100), icc_profile=matrix_profile(ADOBE_RGB, 1.8))))
    assert np.abs(found - in_srgb((100, 100, 100), ADOBE_RGB, 1.8)).max() <= 2


@pytest.mark.parametrize(
    ("picture", "profile"),
    [
        (flat(), b"nothing"),
        (flat(), matrix_profile(ADOBE_RGB, 2.2)[:200]),
        (flat(), bytes(400)),
        (flat(), grey_profile(2.2)),
        (flat().convert("CMYK"), matrix_profile(ADOBE_RGB, 2.2)),
    ],
    ids=["text", "cut", "zeros", "grey for colours", "colours for ink"],
)
def test_a_profile_that_does_not_do_is_ignored_with_a_warning(
    picture: Image.Image, profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kind = "TIFF" if picture.mode == "CMYK" else "PNG"
    with caplog.at_level(logging.WARNING):
        found = read_image(encode(picture, kind, icc_profile=profile), name="holiday.png")
    assert (np.asarray(found) == np.asarray(picture.convert("RGB"))).all()
    (message,) = caplog.messages
    assert message.startswith("holiday.png: its colour profile cannot be used")
