"""Cutting of pictures of any size into overlapping square tiles, and joining without seams.

Tiles are evenly spaced, and each shares at least ``overlap`` pixels with the next one. Where tiles overlap, their pixels
are mixed by weights that rise linearly from a tile's edge, so that no tile's border is visible.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dove.errors import UserError

Pixels = NDArray[Any]  # Pixels in floats, or also in 8 bits where nothing is mixed


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Layout of the tiles of one picture.

    Attributes:
        height: height of the picture, in pixels.
        width: width of the picture, in pixels.
        tile: side of a tile, in pixels.
        overlap: least number of pixels that neighbours share, from 0 to ``tile`` - 1.
    """

    height: int
    width: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile) < 1:
            raise UserError(f"a picture of {self.width}x{self.height} px cannot be cut into tiles of {self.tile} px")
        if not 0 <= self.overlap < self.tile:
            raise UserError(
                f"an overlap of {self.overlap} px does not fit tiles of {self.tile}; pass 0 to {self.tile - 1}"
            )

    @property
    def rows(self) -> list[int]:
        """Upper edges of the tiles, in pixels."""
        return starts(self.height, self.tile, self.overlap)

    @property
    def columns(self) -> list[int]:
        """Left edges of the tiles, in pixels."""
        return starts(self.width, self.tile, self.overlap)

    def __len__(self) -> int:
        """Count the tiles."""
        return len(self.rows) * len(self.columns)

    def split(self, picture: Pixels, tiles: slice = slice(None)) -> Pixels:
        """Cut a picture (C, height, width) into tiles (T, C, tile, tile), row by row: all of them, or some.

        A picture smaller than a tile is continued by its last row and column.
        """
        missing = max(0, self.tile - self.height), max(0, self.tile - self.width)
        padded = np.pad(picture, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge") if any(missing) else picture
        rows, columns = self.rows, self.columns
        numbers = range(len(rows) * len(columns))[tiles]
        corners = [(rows[number // len(columns)], columns[number % len(columns)]) for number in numbers]
        return np.stack([padded[:, y : y + self.tile, x : x + self.tile] for y, x in corners])

    def join(self, tiles: Pixels) -> Pixels:
        """Join tiles (T, C, tile, tile) to the picture (C, height, width), mixed where they overlap."""
        return np.concatenate(list(self.bands([tiles])), axis=1)

    def bands(self, batches: Iterable[Pixels]) -> Iterator[Pixels]:
        """Join tiles from top to bottom, to consecutive bands (C, h, width) with h at most ``tile``.

        Args:
            batches: all tiles, (T, C, tile, tile), row by row, in portions of any size. No more is held of them than one
                row of tiles.
        """
        down, across = (weights(edges, self.tile) for edges in (self.rows, self.columns))
        places = product(range(len(self.rows)), range(len(self.columns)))
        tiles = (tile for batch in batches for tile in batch)
        band = np.zeros((0, 0, 0))
        for (i, j), pixels in zip(places, tiles, strict=True):
            if not band.size:
                band = np.zeros((len(pixels), self.tile, max(self.width, self.tile)))
            x = self.columns[j]
            band[:, :, x : x + self.tile] += pixels * (down[i][:, None] * across[j])
            if j + 1 == len(self.columns):
                finished = ([*self.rows, self.height][i + 1]) - self.rows[i]
                yield band[:, :finished, : self.width].astype(pixels.dtype)
                band = np.concatenate([band[:, finished:], np.zeros_like(band[:, :finished])], axis=1)


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Compute the first pixels of the fewest evenly spaced tiles that cover ``length`` pixels and share ``overlap``."""
    span = max(0, length - tile)
    steps = -(-span // (tile - overlap))
    return [round(span * step / max(steps, 1)) for step in range(steps + 1)]


def weights(edges: list[int], tile: int) -> NDArray[np.float64]:
    """Compute the weights of each tile along one axis at each of its pixels, (tiles, tile).

    A weight is a triangle, above 0 everywhere, divided by the sum of the triangles at that pixel, so that the weights at
    every pixel sum to 1.
    """
    triangle = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float64)
    total = np.zeros(edges[-1] + tile)
    for edge in edges:
        total[edge : edge + tile] += triangle
    return np.stack([triangle / total[edge : edge + tile] for edge in edges])
