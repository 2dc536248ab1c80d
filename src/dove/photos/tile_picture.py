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
MARGIN, GAP, CAPTION = 36, 24, 84
NARROWEST = 300  # Least width of a column, in pixels, so that its captions have room
HEAT: Colormap = LinearSegmentedColormap.from_list("tokens", ["#fff7e6", "#fbb55a", "#e2603b", "#a01f4b", "#3b0f4f"])


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledRow:
    """One photo's row of the picture; scaled down at once, so that large photos are not kept."""

    photo: Image.Image
    rebuilt: list[Image.Image]
    captions: list[tuple[str, str]]  # Two lines below the photo, then two below each reconstruction
    tiling: Tiling
    lengths: list[NDArray[np.int64]]  # Tokens of every tile, (rows, columns), for each reconstruction


def shrink(photo: Image.Image) -> Image.Image:
    """Scale a photo to its size in the picture."""
    scale = PANEL / max(photo.size)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.resize(size, Image.Resampling.BICUBIC)


def draw_tiled(rows: Sequence[TiledRow]) -> Image.Image:
    """Draw each photo with its reconstructions beside it, and below every reconstruction its map of tokens."""
    column = [max(row.photo.width, NARROWEST) for row in rows]
    count = 1 + max(len(row.rebuilt) for row in rows)
    heights = [2 * row.photo.height + 2 * CAPTION for row in rows]
    size = 2 * MARGIN + max(column) * count + GAP * (count - 1), 2 * MARGIN + sum(heights)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor=PAPER)
    canvas: Any = FigureCanvasAgg(figure)
    top = MARGIN
    for row, width, height in zip(rows, column, heights, strict=True):
        _draw_row(figure, row, width, top)
        top += height
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_row(figure: Figure, row: TiledRow, column: int, top: int) -> None:
    scale = Normalize(0, max(int(lengths.max()) for lengths in row.lengths))
    width, height = row.photo.size
    for number, (photo, caption) in enumerate(zip([row.photo, *row.rebuilt], row.captions, strict=True)):
        left = MARGIN + number * (column + GAP) + (column - width) // 2
        axes = _place(figure, left, top, width, height)
        axes.imshow(photo, extent=(0, width, height, 0))
        _caption(axes, caption)
        below = top + height + CAPTION
        if number:
            _draw_map(_place(figure, left, below, width, height), row, row.lengths[number - 1], scale)
    _draw_scale(figure, MARGIN + (column - width) // 2, top + height + CAPTION, row, scale)


def _place(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Make axes at these pixels, counted from the upper left, without ticks or frame."""
    across, down = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def _caption(axes: Axes, lines: tuple[str, str]) -> None:
    for line, offset, weight in zip(lines, (-6, -19), ("bold", "normal"), strict=True):
        axes.annotate(
            line,
            (0.5, 0),
            (0, offset),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            color=INK,
            fontsize=9,
            fontweight=weight,
        )


def _draw_map(axes: Axes, row: TiledRow, lengths: NDArray[np.int64], scale: Normalize) -> None:
    """Draw the tokens of every tile in colours over the photo in pale grey, each tile up to the middle of its overlaps."""
    width, height = row.photo.size
    grey = 0.6 + 0.4 * np.asarray(row.photo.convert("L")) / 255
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    across = borders(row.tiling.columns, row.tiling.tile, row.tiling.width) * width / row.tiling.width
    down = borders(row.tiling.rows, row.tiling.tile, row.tiling.height) * height / row.tiling.height
    colours = HEAT(scale(lengths))
    colours[..., 3] = 0.8
    axes.pcolormesh(across, down, colours)
    axes.set(xlim=(0, width), ylim=(height, 0))


def borders(edges: Sequence[int], tile: int, length: int) -> NDArray[np.float64]:
    """Compute the borders of the tiles' cells along one axis, in the middle of what two tiles share.

    Returns:
        (n + 1,) from 0 to ``length``.
    """
    middles = [(first + tile + second) / 2 for first, second in pairwise(edges)]
    return np.array([0, *middles, length], dtype=np.float64)


def _draw_scale(figure: Figure, left: int, top: int, row: TiledRow, scale: Normalize) -> None:
    """Draw the colour bar in the place of the map of the photo itself."""
    width = row.photo.width
    axes = _place(figure, left + width // 10, top + row.photo.height // 2 - 12, width * 8 // 10, 16)
    axes.set_axis_on()
    bar = figure.colorbar(ScalarMappable(scale, HEAT), cax=axes, orientation="horizontal")
    bar.set_label("tokens per tile", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK, length=3)
    bar.outline.set_visible(False)
