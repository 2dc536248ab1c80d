"""Picture of photos rebuilt from tiles, with maps of the tokens per tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dove.photos.picture import INK, PAPER
from dove.photos.tiling import Tiling

DPI = 150
PANEL = 480  # Longer side of a photo in the picture, in pixels
LEAST_HEIGHT = 0.125  # Height of the place for a very wide photo, in its width
CAPTION = 0.55  # Height of the captions below a photo, in inches
HEAT: Colormap = LinearSegmentedColormap.from_list("tokens", ["#fff7e6", "#fbb55a", "#e2603b", "#a01f4b", "#3b0f4f"])


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledRow:
    """One photo's row of the picture."""

    photo: Image.Image  # Scaled down to ``PANEL``, as the others, so that large photos are not kept
    rebuilt: list[Image.Image]
    captions: list[str]  # Two lines below the photo, then two below each reconstruction
    tiling: Tiling
    lengths: list[NDArray[np.int64]]  # Tokens of every tile, (rows, columns), for each reconstruction


def draw_tiled(rows: Sequence[TiledRow]) -> Image.Image:
    """Draw each photo with its reconstructions beside it, and below every reconstruction its map of tokens."""
    count = 1 + max(len(row.rebuilt) for row in rows)
    shapes = [max(row.photo.height / max(row.photo.size), LEAST_HEIGHT) for row in rows]
    width = PANEL / DPI
    heights = [shape * width + CAPTION for shape in shapes for _ in range(2)]
    figure = Figure((1.1 * width * count, sum(heights)), DPI, facecolor=PAPER, layout="constrained")
    grid = figure.subplots(2 * len(rows), count, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, photos, maps in zip(rows, grid[::2], grid[1::2], strict=True):
        scale = Normalize(0, max(int(lengths.max()) for lengths in row.lengths))
        for axes, photo, caption in zip(photos, [row.photo, *row.rebuilt], row.captions, strict=False):
            axes.imshow(photo, interpolation="bicubic")
            axes.set_xlabel(caption, color=INK, fontsize=9)
        for axes, lengths in zip(maps[1:], row.lengths, strict=False):
            _draw_map(axes, row, lengths, scale)
        bar = figure.colorbar(
            ScalarMappable(scale, HEAT), cax=maps[0].inset_axes((0.1, 0.45, 0.8, 0.1)), orientation="horizontal"
        )
        bar.set_label("tokens per tile", color=INK, fontsize=9)
        bar.ax.tick_params(labelsize=8, colors=INK, length=3)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_map(axes: Axes, row: TiledRow, lengths: NDArray[np.int64], scale: Normalize) -> None:
    """Draw the tokens of every tile in colours over the photo in pale grey, each tile up to the middle of its overlaps."""
    tiling = row.tiling
    frame = (0, tiling.width, tiling.height, 0)
    axes.imshow(0.6 + 0.4 * np.asarray(row.photo.convert("L")) / 255, cmap="gray", vmin=0, vmax=1, extent=frame)
    across, down = borders(tiling.columns, tiling.tile, tiling.width), borders(tiling.rows, tiling.tile, tiling.height)
    axes.pcolormesh(across, down, lengths, cmap=HEAT, norm=scale, alpha=0.8)
    axes.set(xlim=frame[:2], ylim=frame[2:])


def borders(edges: Sequence[int], tile: int, length: int) -> NDArray[np.float64]:
    """Compute the borders of the tiles' cells along one axis, in the middle of what two tiles share.

    Returns:
        (n + 1,) from 0 to ``length``.
    """
    middles = [(first + tile + second) / 2 for first, second in pairwise(edges)]
    return np.array([0, *middles, length], dtype=np.float64)
