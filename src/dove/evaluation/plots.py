"""Diagrams of the evaluations."""

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

Row = Mapping[str, Any]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, which colour-blind people tell apart, without their yellow, which is too pale for lines on white."""
GREY = "#7f7f7f"
"""Colour of references: trivial models, diagonals, errors."""
TRIVIAL = ("cosines", "flat colour")  # Models that learn nothing
MARKERS = "osD^vP"  # Markers by round through the colours
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "figure.dpi": 120,
    "font.size": 12,
    "grid.color": "#e4e4e4",
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
NETWORKS = {"squeezenet": "SqueezeNet", "efficientnet": "EfficientNet-Lite0", "mobilenet": "MobileNetV2"}
LABELS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "dreamsim": "DreamSim",
    **{f"perceptual_{name}": f"distance by {network}" for name, network in NETWORKS.items()},
    "fid": "FID",
    **{f"fd_{name}": f"Frechet distance\nby {network}" for name, network in NETWORKS.items()},
}  # Measures by name; PSNR and SSIM are better the higher they are, all others the lower
SPEEDS = {
    "encode_images_per_second": ("Encoding", "images per second", 1.0),
    "decode_images_per_second": ("Decoding", "images per second", 1.0),
    "lm_multiply_adds": ("Encoder and language model", "multiply-adds (10¹²)", 1e12),
}  # Column: title, axis label and unit
BEST_PSNR = 60.0  # PSNR in dB above which differences are rounding and curves end


def looks(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Choose colour, marker and line of each model: grey and dashed for trivial ones, which come last, over the others."""
    names = list(dict.fromkeys(models))
    found: dict[str, dict[str, Any]] = {}
    for number, model in enumerate(name for name in names if name not in TRIVIAL):
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        found[model] = {"color": COLOURS[number % len(COLOURS)], "marker": marker, "linestyle": "-"}
    trivial = [name for name in names if name in TRIVIAL]
    return found | {name: {"color": GREY, "marker": MARKERS[n], "linestyle": "--"} for n, name in enumerate(trivial)}


def by_model(rows: Sequence[Row]) -> list[tuple[str, list[Row], dict[str, Any]]]:
    """Group rows by model, each with its name, shortened to its end where it is long, and its look."""
    found = looks(row["model"] for row in rows)
    return [(short_name(name), [row for row in rows if row["model"] == name], look) for name, look in found.items()]


style = partial(mpl.rc_context, STYLE)  # type: ignore[arg-type]
"""Context in which all diagrams are drawn."""


def panels(rows: int, columns: int, *, width: float = 4.0, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of axes, row by row, without pyplot and its global state."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


LONGEST_LABEL = 28
LEGEND_COLUMN, LEGEND_ROW = 2.9, 0.24  # Inches that an entry of a legend of such letters takes


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
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for all panels below them and enlarge the figure: inside it would cover the lines of many models."""
    entries = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    columns = max(1, int(figure.get_figwidth() // LEGEND_COLUMN))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(entries) // columns))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def token_axis(axes: Axes, ticks: Sequence[int] | Sequence[float], label: str = "tokens (mean over images)") -> None:
    """Give axes a logarithmic axis of token counts, or what else doubles, with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)


def plot_rate_distortion(rows: Sequence[Row]) -> bytes:
    """Plot every quality in ``rows`` against the mean number of tokens: fixed lengths as a line, adaptive ones as stars.

    Rows above ``BEST_PSNR`` are left out. Arrows show where better values lie.
    """
    names = [name for name in LABELS if any(row.get(name) is not None for row in rows)]
    rows = [row for row in rows if row["psnr"] <= BEST_PSNR] or rows
    ticks = sorted({row["num_tokens"] for row in rows if isinstance(row["num_tokens"], int)}) or [1]
    with style():
        figure, axes = panels(-(-len(names) // 3), min(len(names), 3))
        for name, panel in zip(names, axes, strict=False):
            for model, own, look in by_model(rows):
                plot_model(panel, own, name, model, look)
            panel.set_title(f"{LABELS[name]} {'↑' if name in ('psnr', 'ssim') else '↓'}")
            panel.yaxis.set_major_formatter("{x:,g}")
            token_axis(panel, ticks)
        for panel in axes[len(names) :]:
            panel.set_visible(False)
        legend_below(figure, axes[: len(names)])
        return to_png(figure)


def plot_model(
    axes: Axes, rows: Sequence[Row], name: str, label: str, look: Mapping[str, Any], error: str | None = None
) -> None:
    """Plot a column of a model's rows against the mean number of tokens, with its error: a line, stars for adaptive ones."""
    if fixed := sorted((row for row in rows if isinstance(row["num_tokens"], int)), key=lambda row: row["mean_length"]):
        errors = [row[error] for row in fixed] if error else None
        lengths, values = ([row[column] for row in fixed] for column in ("mean_length", name))
        axes.errorbar(lengths, values, errors, **look, capsize=2, label=label)
    for row in rows:
        if isinstance(row["num_tokens"], str) and not row["num_tokens"].startswith("fixed@"):
            told = f"{label} {row['num_tokens']}"
            axes.plot(
                row["mean_length"], row[name], "*", color=look["color"], ms=14, markeredgecolor="white", label=told
            )


def plot_speed(rows: Sequence[Row]) -> bytes:
    """Plot speeds, where measured, and operations against the number of tokens."""
    shown = [column for column in SPEEDS if any(row[column] is not None for row in rows)]
    with style():
        figure, axes = panels(1, len(shown))
        for column, panel in zip(shown, axes, strict=True):
            title, label, unit = SPEEDS[column]
            for model, own, look in by_model(rows):
                points = sorted((row["mean_length"], row[column] / unit) for row in own if row[column] is not None)
                if points:
                    weights = "" if own[0]["weights"] == "checkpoint" else f" ({own[0]['weights']})"
                    panel.plot(*zip(*points, strict=True), **look, label=f"{model}{weights}")
            panel.set(title=title, xlabel="tokens (mean over images)", ylabel=label)
            panel.set_xlim(0, panel.dataLim.x1 * 1.06)
            panel.set_ylim(0, panel.dataLim.y1 * 1.08)
        legend_below(figure, axes)
        return to_png(figure)
