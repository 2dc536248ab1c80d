"""Reconstruction of photos of any size by a tokenizer for small squares, each tile with its own length."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dove.lengths import LengthPolicy
from dove.metrics import LEAST_ERROR
from dove.photos.reconstruction import choose_together, encode_given
from dove.photos.tiling import Tiling
from dove.protocol import Tokenizer, device_of

OVERLAP = 8  # Least overlap of neighbouring tiles, in pixels, which are blended
CPU_PIXELS = 2**16
"""Pixels of one batch of tiles on a CPU, which larger batches make no faster: 16 tiles of 64 px, 1 of 256."""
MOST_PIXELS = 2**22
BYTES_A_PIXEL = 6000
"""Memory of the model's activations per pixel; 5400 at most with the VQGAN of the base size in fp32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledReconstructions:
    """Photo rebuilt from its tiles by P policies."""

    lengths: list[NDArray[np.int64]]  # Tokens of every tile, (rows, columns), for each policy
    psnr: list[float]  # PSNR in dB, of the whole photo; see :func:`dove.metrics.psnr`
    pictures: list[Image.Image]  # Pictures of the photo's size


def reconstruct_tiled(
    model: Tokenizer,
    photo: Image.Image,
    tiling: Tiling,
    policies: Sequence[LengthPolicy],
    query: str | None = None,
    progress: Callable[[int], Any] = lambda _tiles: None,
) -> TiledReconstructions:
    """Rebuild a photo at the lengths that each policy gives to its tiles; a budget is shared by all of them.

    Memory beside the photo and its reconstructions in 8 bits grows with the tiles of one row alone.

    Args:
        model: a tokenizer; a ``QDove`` where there is a query.
        photo: RGB.
        tiling: layout of the tiles.
        policies: one for each reconstruction.
        query: text that the tokens of every tile describe first; None for the whole tile.
        progress: called with the number of tiles of every batch that passed the model, in each of ``passes(policies)``.
    """
    original = np.asarray(photo).transpose(2, 0, 1)
    device = device_of(model)
    size = batch_tiles(tiling.tile, device)
    places = [slice(start, start + size) for start in range(0, len(tiling), size)]
    lengths = np.empty((len(policies), len(tiling)), np.int64)

    def batches() -> Iterator[Float[Tensor, "B 3 S S"]]:
        for place in places:
            tiles = torch.from_numpy(tiling.split(original, place)).to(device)
            yield tiles / 127.5 - 1
            progress(len(tiles))

    chosen = choose_together(model, batches(), policies, query)

    def rebuilt() -> Iterator[Float[NDArray[np.float32], "B P*3 S S"]]:
        for place, images in zip(places, batches(), strict=True):
            given = [None if row is None else row[place] for row in chosen]
            encoded = encode_given(model, images, policies, given, query)
            lengths[:, place] = [tokens.lengths.tolist() for tokens in encoded]
            yield torch.cat([model.decode(tokens) for tokens in encoded], dim=1).float().cpu().numpy()

    pictures, qualities = collect(tiling.bands(rebuilt()), original, len(policies))
    return TiledReconstructions(
        lengths=list(lengths.reshape(-1, len(tiling.rows), len(tiling.columns))), psnr=qualities, pictures=pictures
    )


def scale_down(photo: Image.Image, longest: int) -> Image.Image:
    """Scale a photo down until its longer side has at most ``longest`` pixels; smaller ones stay as they are."""
    scale = longest / max(photo.size)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.resize(size, Image.Resampling.BICUBIC) if scale < 1 else photo


def batch_tiles(side: int, device: torch.device) -> int:
    """Count the tiles of ``side`` pixels that pass the model together: on a GPU those that half of its free memory holds."""
    pixels = CPU_PIXELS
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        pixels = min(MOST_PIXELS, free // 2 // BYTES_A_PIXEL)
    return max(1, pixels // side**2)


def passes(policies: Sequence[LengthPolicy]) -> int:
    """Count the passes of all tiles through the encoder: a budget needs one more, to be shared out first."""
    return 2 if any(policy.collective for policy in policies) else 1


def collect(
    bands: Iterator[NDArray[np.float32]], original: NDArray[np.uint8], count: int = 1
) -> tuple[list[Image.Image], list[float]]:
    """Assemble bands (3 * count, h, W) to pictures, and compute their PSNR against the original (3, H, W)."""
    channels, height, width = original.shape
    pictures = np.empty((count, height, width, channels), np.uint8)
    errors, top = np.zeros(count), 0
    for band in bands:
        rows = slice(top, top + band.shape[1])
        pixels = (band.reshape(count, channels, -1, width).clip(-1, 1) + 1) / 2
        errors += ((pixels - original[:, rows] / 255.0) ** 2).sum((1, 2, 3))
        pictures[:, rows] = np.rint(pixels * 255).transpose(0, 2, 3, 1)
        top = rows.stop
    qualities = [-10 * math.log10(max(error, LEAST_ERROR)) for error in errors / original.size]
    return list(map(Image.fromarray, pictures)), qualities
