"""Diagrams of the evaluations."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

COLOURS = (
    "#1f6f8b",
    "#d1603d",
    "#4c8c4a",
    "#7a5195",
    "#b8860b",
    "#5c5c5c",
    "#c2185b",
    "#2ca6a4",
    "#8c564b",
    "#9aa51c",
)
STYLE = {
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": 110,
    "font.size": 9.5,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
LABELS = {
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
    "lpips": "LPIPS (lower is better)",
    "perceptual_squeezenet": "perceptual_squeezenet (lower is better)",
    "perceptual_efficientnet": "perceptual_efficientnet (lower is better)",
    "perceptual_mobilenet": "perceptual_mobilenet (lower is better)",
    "fid": "FID (lower is better)",
    "fd_squeezenet": "fd_squeezenet (lower is better)",
    "fd_efficientnet": "fd_efficientnet (lower is better)",
    "fd_mobilenet": "fd_mobilenet (lower is better)",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all diagrams."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of axes, row by row, without pyplot and its global state."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


LONGEST_LABEL = 28
LEGEND_SIZE = 8.5
LEGEND_COLUMN, LEGEND_ROW = 2.7, 0.19  # Inches that an entry of a legend of such letters takes


def short_name(name: str) -> str:
    """Shorten a long model name, such as a path, to its end, so that the axes have room."""
    return name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"


def cloud(axes: Axes, x: NDArray[Any], y: NDArray[Any], colour: str) -> None:
    """Plot points, small and faint where there are thousands, so that few and many of them are visible."""
    strength = (2000 / max(1, np.size(x))) ** 0.5
    axes.scatter(x, y, s=min(25, 3 * strength), alpha=min(0.9, 0.25 * strength), color=colour, rasterized=True)


def log_axis(axes: Axes) -> None:
    """Give axes a logarithmic x axis with plain numbers, few enough to stand side by side."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for all panels below them and enlarge the figure: inside it would cover the lines of many models."""
    entries = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    columns = max(1, int(figure.get_figwidth() // LEGEND_COLUMN))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(entries) // columns))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=LEGEND_SIZE
    )


def to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def token_axis(axes: Axes, ticks: Sequence[int] | Sequence[float]) -> None:
    """Give axes a logarithmic axis of token counts with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("tokens (mean over images)")


def plot_rate_distortion(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot every quality in ``rows`` against the mean number of tokens: fixed lengths as a line, adaptive ones as stars."""
    names = [name for name in LABELS if any(row.get(name) is not None for row in rows)]
    models = list(dict.fromkeys(row["model"] for row in rows))
    with style():
        figure, axes = panels(-(-len(names) // 3), min(len(names), 3))
        for name, panel in zip(names, axes, strict=False):
            for model, colour in zip(models, _cycle(len(models)), strict=True):
                _plot_model(panel, [row for row in rows if row["model"] == model], name, colour)
            panel.set_title(LABELS[name])
            token_axis(panel, sorted({row["num_tokens"] for row in rows if isinstance(row["num_tokens"], int)}) or [1])
        for panel in axes[len(names) :]:
            panel.set_visible(False)
        legend_below(figure, axes[: len(names)])
        return to_png(figure)


def _plot_model(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    fixed = sorted((row["mean_length"], row[name]) for row in rows if isinstance(row["num_tokens"], int))
    adaptive = [
        row for row in rows if isinstance(row["num_tokens"], str) and not row["num_tokens"].startswith("fixed@")
    ]
    if fixed:
        axes.plot(*zip(*fixed, strict=True), "o-", color=colour, markersize=4, label=rows[0]["model"])
    for row in adaptive:
        point, label = (row["mean_length"], row[name]), f"{row['model']} {row['num_tokens']}"
        axes.plot(*point, "*", color=colour, markersize=13, markeredgecolor="white", label=label)


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
