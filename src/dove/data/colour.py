"""Colours of embedded ICC profiles (Display P3, Adobe RGB, CMYK of a press, ...) in sRGB, which all models work in."""

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from dove.errors import one_line

PROFILE = "icc_profile"  # Key of the profile in the ``info`` of a Pillow image
_CHANNELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's mode for each kind of profile that photos come with
_GREY_MODES = ("1", "L", "LA")

_logger = logging.getLogger(__name__)


def convert_to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert a picture with 8 bits per channel to sRGB, without its transparency and its profile.

    Args:
        image: picture in any mode with 8 bits per channel.
        profile: ICC profile of the picture; None for sRGB. One that is damaged, or of other channels than the
            picture, is ignored with a warning.
        name: name of the picture in the warning.
    """
    converted = None
    try:
        if profile:
            mode, transform = _transform(profile)
            if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and image.mode not in _GREY_MODES):
                raise ValueError(f"a profile for {mode}, a picture in {image.mode}")
            if transform is not None:
                converted = ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        told = "%s: its colour profile cannot be used (%s); its numbers are taken for sRGB"
        _logger.warning(told, name, one_line(error))
    converted = image.convert("RGB") if converted is None else converted
    converted.info.pop(PROFILE, None)  # or the next reader would convert once more
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Build the transform to sRGB, and name the mode that it takes.

    It is None for profiles that differ from sRGB by at most one of 255 levels.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in _CHANNELS:
        raise ValueError(f"a profile for {space}")
    mode = _CHANNELS[space]
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    probe = Image.fromarray(grid if mode == "RGB" else grid[..., 0].copy())
    moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe.convert("RGB"))
    return mode, transform if np.abs(moved).max() > 1 else None
