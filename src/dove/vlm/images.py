"""Pictures as the image tokenizer gets them, and their tokens."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dove.data.dataset import ImageDataset, Record
from dove.data.reading import read_image, to_rgb
from dove.errors import UserError
from dove.processor import central_square, pil_to_tensor, resize_box
from dove.protocol import Tokenizer, encode_each
from dove.tokens import Tokens
from dove.vlm.config import PREFIX, ViewsConfig

PADDING = (124, 116, 104)  # ImageNet's mean colour, as in LLaVA


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """An image as one sample wants it.

    Attributes:
        query: what a query-conditioned tokenizer is asked for; None for the whole image.
    """

    index: int
    query: str | None = None


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
    images: ImageDataset, index: int, image_size: int, views: ViewsConfig | None = None, draw: Sequence[int] = (0, 0)
) -> Float[Tensor, "3 S S"]:
    """One picture of a source, padded to a square and scaled, in [-1, 1]."""
    record = images[index]
    if not isinstance(record, Record):
        raise UserError(record.reason)
    image = pad_to_square(record.image)
    if views is not None:
        image = random_view(image, views, np.random.default_rng([*draw, index]))
    return square_pixels(image, image_size)


def load_view(
    images: ImageDataset, index: int, image_size: int, views: ViewsConfig, seed: int, view: int
) -> Float[Tensor, "3 S S"]:
    """View number ``view`` of a training image, of which 0 is the image itself; else as ``load_pixels``."""
    return load_pixels(images, index, image_size, views if view else None, (seed, view))


def takes_queries(tokenizer: Tokenizer) -> bool:
    """Tell whether ``encode`` of this tokenizer takes a query."""
    return "query" in inspect.signature(tokenizer.encode).parameters


def encode_glimpses(
    tokenizer: Tokenizer,
    pixels: Float[Tensor, "B 3 S S"],
    requests: Sequence[str],
    queries: Sequence[str | None] | None = None,
) -> list[Tokens]:
    """Tokens by each of the length policies; by the queries where the tokenizer takes them."""
    wanted = [str(tokenizer.max_tokens) if request == PREFIX else request for request in requests]
    if queries is not None and all(queries) and takes_queries(tokenizer):
        return [tokenizer.encode(pixels, request, query=list(queries)) for request in wanted]  # type: ignore[call-arg]
    return encode_each(tokenizer, pixels, wanted)
