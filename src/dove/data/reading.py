"""Reading of single pictures as upright 8-bit sRGB; every failure is a one-line error."""

import io
import logging
import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dove.data.colour import PROFILE, convert_to_srgb
from dove.errors import UserError, one_line, readable

MAX_PIXELS = 178_956_970
"""Pictures with more pixels are refused before they are decoded (the bound at which Pillow calls them a bomb)."""
MAX_BYTES = 512 << 20  # Encoded pictures of more bytes are refused before they are read

# A closed list: Pillow would otherwise offer the file to plugins that run other programs (EPS) or accept anything.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .mpo .avif .jp2 .ico".split()
)  # Suffixes by which a file of a folder or of a tar counts as an image

ImageSource = str | os.PathLike[str] | bytes | io.BufferedIOBase

# Pillow logs what it then raises; without a handler Python would print the log to stderr as well.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_image(source: ImageSource, *, name: str | None = None) -> Image.Image:
    """Read a picture as upright RGB in sRGB.

    EXIF rotation is applied, and an embedded colour profile is converted to sRGB (a damaged one is ignored with a warning).
    Transparency is composited on white, 16-bit and floating-point values are scaled (never clipped) to 8 bits, and of an
    animation the first frame is taken.

    Args:
        source: path, encoded bytes, or an open binary file.
        name: name of the picture in error messages; None for its path.

    Raises:
        UserError: If the source is missing, no image, damaged, truncated, or has more than ``MAX_PIXELS`` pixels.
    """
    if name is None and isinstance(source, str | os.PathLike):
        name = readable(os.fspath(source))
    name = name or str(getattr(source, "name", "image"))
    data = _read_bytes(source, name)
    if not data:
        raise UserError(f"{name}: the file is empty (0 bytes); replace it or leave it out")
    # Pillow's warnings (damaged metadata, sizes near the limit) add nothing to a picture or an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, name)
        except UnidentifiedImageError as error:
            raise UserError(f"{name}: not an image that can be read; pass JPEG, PNG, WebP, GIF, BMP or TIFF") from error
        except Image.DecompressionBombError as error:
            told = f"the picture is larger than the {MAX_PIXELS} pixels that are accepted; make it smaller first"
            raise UserError(f"{name}: {told}") from error
        # Damaged files make the decoders raise nearly every built-in exception.
        except Exception as error:
            told = f"damaged or truncated image ({one_line(error)}); replace it or leave it out"
            raise UserError(f"{name}: {told}") from error


def to_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """Convert a picture in any mode to 8-bit RGB in sRGB, with transparency on white."""
    name = name or str(getattr(image, "filename", "")) or "image"
    profile = image.info.get(PROFILE)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scale_to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    colours = convert_to_srgb(image, profile, name)
    if not image.has_transparency_data:
        return colours
    overlay = colours.convert("RGBA")
    overlay.putalpha(image.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")


def _decode(data: bytes, name: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:  # where somebody has taken Pillow's own bound away
            raise Image.DecompressionBombError
        image.load()
        with suppress(Exception):  # damaged metadata raise anything and must not cost the picture
            ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image, name)


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels of 16 and 32 bits or floating point to 8 bits.

    16-bit modes map 0..65535 to 0..255. The other modes do not say their range: it is the smallest usual one (0..1 for
    floating point, 0..255, 0..65535) that holds every value, else minimum to maximum.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    usual = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
    if image.format == "PPM":  # Pillow itself brings these to 0..65535, so a dark picture is dark and not of 8 bits
        usual = (65535.0,)
    low, high = float(values.min()), float(values.max())
    fitting = [top for top in usual if low >= 0 and high <= top]
    low, high = (0.0, fitting[0]) if fitting else (low, high)
    return Image.fromarray(np.rint((values - low) * (255.0 / (high - low or 1.0))).astype(np.uint8))


def _read_bytes(source: ImageSource, name: str) -> bytes:
    if not isinstance(source, str | os.PathLike):
        data = source if isinstance(source, bytes) else source.read()
        check_size(len(data), name)
        return data
    path = Path(source)
    try:
        check_size(path.stat().st_size, name)
        if not path.is_file():
            raise UserError(f"{name}: a folder, or not a regular file; pass an image file")
        return path.read_bytes()
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name}: cannot be read ({reason}); check the path and its permissions") from error


def check_size(size: int, name: str, limit: int | None = None) -> None:
    """Refuse sizes that would fill the memory."""
    limit = MAX_BYTES if limit is None else limit
    if size > limit:
        raise UserError(f"{name}: {size} bytes are more than the {limit} accepted; leave it out or make it smaller")
