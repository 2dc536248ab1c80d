"""Every picture is read as a person would see it, or refused in one line."""

import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, gradient, png_header
from PIL import Image

from dove.data.images import read_image
from dove.errors import UserError


def levels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_common_formats(kind: str, photo: Image.Image) -> None:
    image = read_image(encode(photo, kind))
    assert image.size == (24, 16)
    assert np.abs(levels(image) - gradient()).mean() < 12


def test_sources_agree(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "a.png"
    photo.save(path)
    data = path.read_bytes()
    expected = levels(photo)
    for source in (path, str(path), data, io.BytesIO(data)):
        assert (levels(read_image(source)) == expected).all()
    with path.open("rb") as file:
        assert (levels(read_image(file)) == expected).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(kind: str, orientation: int) -> None:
    upright = Image.fromarray(gradient(32, 16))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    image = read_image(encode(stored, kind, exif=exif, **lossless))
    assert image.size == (32, 16)
    assert np.abs(levels(image) - gradient(32, 16)).mean() < 8


def test_damaged_exif_keeps_the_picture(photo: Image.Image) -> None:
    image = read_image(encode(photo, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f"))
    assert image.size == (24, 16)


def test_cmyk(photo: Image.Image) -> None:
    for kind in ("JPEG", "TIFF"):
        image = read_image(encode(photo.convert("CMYK"), kind))
        assert np.abs(levels(image) - gradient()).mean() < 12


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")])
def test_16_bit_is_scaled(kind: str, dtype: str) -> None:
    values = np.linspace(0, 65535, 24 * 16).reshape(16, 24).astype(dtype)
    image = levels(read_image(encode(Image.fromarray(values), kind)))
    assert np.abs(image[..., 0] - values.astype(float) / 257).max() <= 1


def test_dark_16_bit_stays_dark() -> None:
    for kind in ("PNG", "PPM"):
        assert levels(read_image(encode(Image.fromarray(np.full((8, 8), 200, np.uint16)), kind))).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 100, 255]]), [0, 100, 255]),
        (np.float32([[-1, 0, 1]]), [0, 128, 255]),
        (np.float32([[np.nan, 1, 0.2]]), [0, 255, 51]),
        (np.float32([[5e5, 5e5, 5e5]]), [0, 0, 0]),
        (np.int32([[0, 7, 255]]), [0, 7, 255]),
        (np.int32([[0, 25700, 65535]]), [0, 100, 255]),
        (np.int32([[-1000, 0, 1000]]), [0, 128, 255]),
    ],
)
def test_float_and_32_bit(values: np.ndarray, expected: list[int]) -> None:
    image = levels(read_image(encode(Image.fromarray(values), "TIFF")))
    assert np.abs(image[0, :, 0] - expected).max() <= 1


def test_transparency_on_white() -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, 12:] = 255
    picture = np.dstack([gradient() // 2, alpha])
    rgba = Image.fromarray(picture)
    for data in (encode(rgba), encode(rgba, "TIFF"), encode(rgba.convert("LA")), encode(rgba, "WEBP", lossless=True)):
        image = levels(read_image(data))
        assert (image[:, :12] == 255).all()
        assert (image[:, 12:] < 200).all()


def test_palette_with_transparency() -> None:
    for kind in ("PNG", "GIF"):
        image = Image.new("P", (4, 1))
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.putdata([0, 1, 0, 1])
        pixels = levels(read_image(encode(image, kind, transparency=0)))
        assert pixels[0].tolist() == [[255] * 3, [40, 50, 60]] * 2


def test_transparent_colour_without_palette() -> None:
    grey = encode(Image.fromarray(np.uint8([[7, 8]])), transparency=7)
    assert levels(read_image(grey))[0, :, 0].tolist() == [255, 8]
    colour = encode(Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]])), transparency=(1, 2, 3))
    assert levels(read_image(colour))[0].tolist() == [[255] * 3, [4, 5, 6]]


def test_lab() -> None:
    assert levels(read_image(encode(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))).min() > 240


def test_one_bit_and_grey() -> None:
    image = levels(read_image(encode(Image.fromarray(np.array([[True, False]])))))
    assert image[0].tolist() == [[255] * 3, [0] * 3]
    assert levels(read_image(encode(Image.fromarray(np.uint8([[9]])))))[0, 0].tolist() == [9] * 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    image = levels(read_image(encode(frames[0], kind, save_all=True, append_images=frames[1:])))
    assert image[4, 4, 0] > 200
    assert image[4, 4, 2] < 60


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert read_image(encode(Image.new("RGB", size))).size == size


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, world", "not an image"),
    "pdf": (b"%PDF-1.4 nothing", "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not an image"),
    "bomb": (png_header(30_000, 30_000), "larger than"),
    "bomb below twice Pillow's bound": (png_header(13_000, 13_800), "larger than"),
    "truncated png": (encode(Image.fromarray(gradient(64, 64)))[:-60], "truncated"),
    "truncated jpeg": (encode(Image.fromarray(gradient(64, 64)), "JPEG")[:-200], "truncated"),
    "jpeg head": (encode(Image.fromarray(gradient(64, 64)), "JPEG")[:100], ""),
    "truncated gif": (encode(Image.fromarray(gradient(64, 64)), "GIF")[:-600], "truncated"),
    "truncated webp": (encode(Image.fromarray(gradient(64, 64)), "WEBP")[:60], ""),
    "truncated tiff": (encode(Image.fromarray(gradient(64, 64)), "TIFF")[:500], ""),
    "truncated deflate tiff": (encode(Image.fromarray(gradient(64, 64)), "TIFF", compression="tiff_deflate")[:300], ""),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, expected = BAD[case]
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_every_cut_is_read_or_refused(photo: Image.Image) -> None:
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = encode(photo, kind)
        for length in range(1, len(data), 23):
            with suppress(UserError):
                assert read_image(data[:length], name="cut").size == (24, 16)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="a folder"):
        read_image(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_image("a\0b.png")
    with pytest.raises(UserError, match="not a regular file"):
        read_image("/dev/zero")


def test_no_warning_for_a_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(encode(Image.new("RGB", (20, 20)))).size == (20, 20)
