"""Pictures as the image tokenizer gets them, and their tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dove.data.dataset import ImageDataset
from dove.data.reading import read_image, to_rgb
from dove.processor import central_square, pil_to_tensor, resize_box
from dove.protocol import Tokenizer, device_of
from dove.query.tokenizer import encode_asked
from dove.tokens import Tokens
from dove.vlm.config import ViewsConfig

PADDING = (124, 116, 104)  # ImageNet's mean colour, as in LLaVA
MOST_NAMES = 3  # Missing images that a message names


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """An image as one sample wants it."""

    index: int
    query: str | None = None  # What a query-conditioned tokenizer is asked for; None for the whole image
    view: int = 0  # Number of a random view; 0 for the picture itself


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture in the middle of the smallest square that holds it, so that nothing is cropped."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def open_picture(source: Any) -> Image.Image:
    """RGB from a path, encoded bytes, an open file or a PIL image."""
    return to_rgb(source) if isinstance(source, Image.Image) else read_image(source)


def square_pixels(image: Image.Image, image_size: int) -> Float[Tensor, "3 S S"]:
    """Padded to a square and scaled, in [-1, 1]: Table 8's transformations."""
    square = pad_to_square(image)
    return pil_to_tensor(resize_box(square, central_square(*square.size), image_size))


def random_view(image: Image.Image, config: ViewsConfig, rng: np.random.Generator) -> Image.Image:
    """A square picture, mirrored or not, smaller, on a larger square of its border's colours: nothing is cropped."""
    side, zoom, left, upper = rng.random(4).tolist()
    if config.mirror and side < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    extra = round(image.width * (config.zoom_out - 1) * zoom)
    x, y = round(left * extra), round(upper * extra)
    pixels = np.pad(np.asarray(image), ((y, extra - y), (x, extra - x), (0, 0)), mode="edge")
    return Image.fromarray(pixels)


def load_pixels(
    images: ImageDataset, glimpses: Sequence[Glimpse], image_size: int, views: ViewsConfig | None = None, seed: int = 0
) -> Float[Tensor, "M 3 S S"]:
    """Pictures of a source, or their views by ``views`` and ``seed``, padded to squares and scaled, in [-1, 1]."""
    pixels = []
    for glimpse in glimpses:
        image = images.raw(glimpse.index).read().image
        if views is not None and glimpse.view:
            rng = np.random.default_rng([seed, glimpse.view, glimpse.index])
            image = random_view(pad_to_square(image), views, rng)
        pixels.append(square_pixels(image, image_size))
    return torch.stack(pixels)


def missing_images(paths: Iterable[str], folder: Path) -> tuple[list[str], str]:
    """Those of the paths that are no files below ``folder``, and their number with the names of the first."""
    missing = [path for path in paths if not (folder / path).is_file()]
    named = ", ".join(missing[:MOST_NAMES]) + (", ..." if len(missing) > MOST_NAMES else "")
    return missing, f"{len(missing)} images are not in {folder}: {named}"


def encode_images(
    tokenizer: Tokenizer,
    images: ImageDataset,
    glimpses: Sequence[Glimpse],
    requests: Sequence[str],
    views: ViewsConfig | None = None,
    seed: int = 0,
) -> list[Tokens]:
    """Tokens of pictures of a source, or of their views, by each of the length policies."""
    pixels = load_pixels(images, glimpses, tokenizer.image_size, views, seed)
    queries = [glimpse.query for glimpse in glimpses]
    return encode_asked(tokenizer, pixels.to(device_of(tokenizer)), requests, queries)
