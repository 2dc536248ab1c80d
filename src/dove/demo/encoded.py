"""Photos of the web page: read, encoded once in full, then cut to any mean number of tokens and rebuilt."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import Tensor

from dove.data.reading import read_image
from dove.errors import UserError
from dove.lengths import Auto, Budget, Fixed
from dove.metrics import psnr
from dove.models.eos import EosScores
from dove.photos.reconstruction import concatenate, score_lengths
from dove.photos.tiled import OVERLAP, batch_tiles, collect, scale_down
from dove.photos.tiling import Tiling
from dove.processor import ImageProcessor, pil_to_tensor
from dove.protocol import ScoresLengths, Tokenizer, device_of
from dove.query.tokenizer import QDove
from dove.tokens import Tokens

EXAMPLES = ("astronaut", "cat", "coffee", "rocket", "page")  # Pictures that lie in scikit-image itself
LONGEST_SIDE = 512
"""Longest side in pixels; larger photos are scaled down, so that a slider's move is answered within a second."""
JPEG_QUALITIES = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 85, 90, 93, 95, 97, 98, 99, 100)
Request = int | Literal["auto"]  # Mean number of tokens a tile, or each tile's own end


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Photo as all tokens of all its T tiles."""

    model: Tokenizer
    photo: Image.Image  # RGB, at the size at which it is rebuilt
    tiling: Tiling
    images: Float[Tensor, "T 3 S S"]  # Tiles in [-1, 1]
    values: Float[Tensor, "T K D"] | None
    """All tokens; None for a tokenizer whose shorter encodings are not the beginnings of longer ones."""
    eos: EosScores | None  # Scores by which lengths are chosen; None where ``values`` is


class Rebuilt(NamedTuple):
    """Photo rebuilt from some of its tokens."""

    picture: Image.Image
    lengths: NDArray[np.int64]  # Tokens of every tile, (rows, columns)
    psnr: float  # PSNR in dB of the whole photo
    numbers: int  # Numbers in one token


class Point(NamedTuple):
    """Quality of a photo at a mean number of tokens a tile."""

    tokens: float
    psnr: float


def write_examples(folder: Path) -> list[Path]:
    """Write the example pictures as files, smaller than they are."""
    paths = []
    for name in EXAMPLES:
        picture = Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
        paths.append(folder / f"{name}.png")
        picture.save(paths[-1])
    return paths


def read_photo(path: str, max_megapixels: float) -> Image.Image:
    """Read an uploaded picture as upright RGB."""
    photo = read_image(path, name=Path(path).name)
    if photo.width * photo.height > max_megapixels * 1e6:
        raise UserError(
            f"{photo.width} × {photo.height} pixels are more than {max_megapixels:g} million; scale it down"
        )
    return photo


@torch.no_grad()
def encode_photo(model: Tokenizer, photo: Image.Image, *, tiled: bool = True, query: str | None = None) -> Encoded:
    """Encode an RGB photo, scaled down to ``LONGEST_SIDE`` pixels, to all tokens of its tiles, or of its central square."""
    if query and not isinstance(model, QDove):
        raise UserError("this model takes no queries; leave the query empty")
    processor = ImageProcessor(model.image_size)
    picture = scale_down(photo, LONGEST_SIDE) if tiled else processor.to_pil(processor(photo))[0]
    tiling = Tiling(height=picture.height, width=picture.width, tile=model.image_size, overlap=OVERLAP)
    tiles = torch.from_numpy(tiling.split(np.asarray(picture).transpose(2, 0, 1)))
    images = (tiles / 127.5 - 1).to(device_of(model))
    values, eos = None, None
    if isinstance(model, ScoresLengths):
        scored = [score_lengths(model, batch, query) for batch in images.split(batch_tiles(tiling.tile, images.device))]
        values, eos = torch.cat([part for part, _ in scored]), concatenate([part for _, part in scored])
    return Encoded(model=model, photo=picture, tiling=tiling, images=images, values=values, eos=eos)


def cut(encoded: Encoded, request: Request) -> Tokens:
    """Cut a photo's tokens: a mean is spent where it helps most, where the model predicts the quality."""
    model = encoded.model
    if encoded.values is None or encoded.eos is None:
        fitting = [count for count in model.token_counts if request == "auto" or count <= request]
        return model.encode(encoded.images, max(fitting, default=model.token_counts[0]))
    if request == "auto":
        policy: Auto | Budget | Fixed = Auto()
    else:
        policy = Fixed(request) if encoded.eos.quality is None else Budget(float(request))
    return Tokens.cut(encoded.values, policy.lengths(encoded.eos))


@torch.no_grad()
def rebuild(encoded: Encoded, request: Request) -> Rebuilt:
    """Rebuild a photo from a mean number of tokens a tile, or at each tile's own length."""
    tokens = cut(encoded, request)
    tiling, model = encoded.tiling, encoded.model
    tiles = np.empty((len(tiling), 3, tiling.tile, tiling.tile), np.float32)
    # Tiles of like lengths together: a batch costs what its longest needs.
    for chosen in tokens.lengths.argsort().split(batch_tiles(tiling.tile, encoded.images.device)):
        part = model.decode(Tokens(tokens.values[chosen], tokens.lengths[chosen]))
        tiles[chosen.cpu().numpy()] = part.float().cpu().numpy()
    (picture,), (quality,) = collect(tiling.bands([tiles]), np.asarray(encoded.photo).transpose(2, 0, 1))
    return Rebuilt(
        picture=picture,
        lengths=tokens.lengths.cpu().numpy().reshape(len(tiling.rows), len(tiling.columns)),
        psnr=quality,
        numbers=tokens.values.shape[2],
    )


def measure(encoded: Encoded, request: Request) -> Point:
    """Measure the quality at a mean number of tokens; see ``rebuild``."""
    found = rebuild(encoded, request)
    return Point(float(found.lengths.mean()), found.psnr)


def jpeg_at_equal_bytes(photo: Image.Image, bytes_a_token: int, means: Sequence[int]) -> list[Point]:
    """Measure JPEG at as many bytes as tokens would take; means that no quality setting fits in are left out."""
    original = pil_to_tensor(photo)
    settings = []
    for quality in JPEG_QUALITIES:
        for subsampling in ("4:2:0", "4:4:4"):
            buffer = io.BytesIO()
            photo.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
            reached = psnr(pil_to_tensor(Image.open(buffer))[None], original[None])
            settings.append((len(buffer.getvalue()), float(reached)))
    points = []
    for mean in means:
        fitting = [quality for size, quality in settings if size <= mean * bytes_a_token]
        points += [Point(float(mean), max(fitting))] if fitting else []
    return points


def common_lengths(max_tokens: int) -> list[int]:
    """List the mean numbers of tokens of a curve: powers of 2 below the capacity K, at which all is exact."""
    return [2**power for power in range(max_tokens.bit_length()) if 2**power < max_tokens] or [max_tokens]
