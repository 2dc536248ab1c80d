"""Conversion of pictures of any kind and size to model input and back."""

import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dove.data.reading import read_image, to_rgb
from dove.errors import UserError


class ImageProcessor:
    """Scaler of the central square of a picture to ``image_size`` pixels; small pictures are enlarged.

    The short side becomes ``image_size`` and the rest is cropped, in one resampling with Pillow's bicubic filter, which
    widens its support when it shrinks (no aliasing). A picture whose short side is ``image_size`` keeps its pixels.
    """

    def __init__(self, image_size: int):
        if not isinstance(image_size, Integral) or image_size < 1:
            raise UserError(f"image_size={image_size!r} must be a whole number of pixels, at least 1")
        self.image_size: int = int(image_size)

    def __call__(self, images: Any) -> Float[Tensor, "B 3 S S"]:
        """Convert pictures to a batch, float32 in [-1, 1].

        Args:
            images: one picture or a sequence of them; a picture is a path, encoded bytes, a PIL image, or an array
                (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of uint8, or of floats in [0, 1]; or an array (B, H, W, C).

        Raises:
            UserError: If one of them cannot be read or is of another kind.
        """
        is_sequence = isinstance(images, Sequence) and not isinstance(images, str | bytes)
        is_batch = isinstance(images, np.ndarray) and images.ndim == 4
        batch = list(images) if is_sequence or is_batch else [images]
        if not batch:
            raise UserError("an empty list of images; pass at least one")
        return torch.stack([self.preprocess(_to_pil(image)) for image in batch])

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 S S"]:
        """Convert one picture in any mode; see the class."""
        return pil_to_tensor(resize_box(to_rgb(image), central_square(*image.size), self.image_size))

    def to_pil(self, images: Float[Tensor, "*B 3 H W"]) -> list[Image.Image]:
        """Convert model output in [-1, 1] (clamped), one image or a batch, to 8-bit RGB.

        Raises:
            UserError: for anything but a tensor of floats.
        """
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            kind = getattr(images, "dtype", type(images).__name__)
            raise UserError(f"images are {kind}; pass floats in [-1, 1], as decode gives them")
        levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        batch = levels.reshape(-1, *levels.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(np.ascontiguousarray(array)) for array in batch]


def central_square(width: int, height: int) -> tuple[float, float, float, float]:
    """Compute the largest square in the middle: left, upper, right, lower, in whole pixels."""
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return float(left), float(upper), float(left + side), float(upper + side)


def resize_box(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """Scale the part of a picture in ``box`` (left, upper, right, lower, in pixels) to ``size`` x ``size``."""
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def pil_to_tensor(image: Image.Image) -> Float[Tensor, "3 H W"]:
    """Convert 8-bit RGB to float32 in [-1, 1]."""
    pixels = np.array(image, dtype=np.float32)
    pixels /= 127.5
    pixels -= 1
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _to_pil(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return _array_to_pil(image)
    if isinstance(image, str | bytes | os.PathLike) or hasattr(image, "read"):
        return read_image(image)
    raise UserError(f"an image of type {type(image).__name__}; pass a path, bytes, a PIL image or a NumPy array")


def _array_to_pil(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if (array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4))) or 0 in array.shape:
        raise UserError(f"an array of shape {array.shape}; an image is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise UserError(f"a float image with values {array.min():.3g} to {array.max():.3g}; scale them to 0..1")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"an array of {array.dtype}; pass uint8, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))
