"""Diagrams of the probes."""

import sys
from collections.abc import Sequence

from matplotlib.axes import Axes

from dove.evaluation.feature_cache import LATENTS, PATCHES
from dove.evaluation.plots import GREY, Row, by_model, legend_below, panels, plot_model, style, to_png, token_axis


def plot_by_length(rows: Sequence[Row], majority: float) -> bytes:
    """Plot accuracy against the mean number of tokens: fixed lengths as a line, adaptive ones as stars."""
    with style():
        figure, (axes,) = panels(1, 1, width=6.4, height=4.0)
        for model, own, look in by_model(rows):
            plot_model(axes, own, "top1", model, look, error="top1_stderr")
        token_axis(axes, sorted({row["num_tokens"] for row in rows if isinstance(row["num_tokens"], int)}) or [1])
        _finish(axes, rows, majority, "MLP on pooled tokens")
        legend_below(figure, [axes])
        return to_png(figure)


def plot_by_layer(rows: Sequence[Row], majority: float) -> bytes:
    """Plot accuracy by layer, on the test images (bars) and on the validation images that choose the layer (rings)."""
    layers = sorted(dict.fromkeys(_layer(row) for row in rows), key=_order)
    models = by_model(rows)
    step = 0.8 / len(models)
    with style():
        figure, (axes,) = panels(1, 1, width=max(6.4, 1.1 * len(layers) + 2), height=4.0)
        for number, (model, own, look) in enumerate(models):
            places = [layers.index(_layer(row)) + (number + 0.5) * step - 0.4 for row in own]
            errors = [row["top1_stderr"] for row in own]
            axes.bar(
                places,
                [row["top1"] for row in own],
                0.9 * step,
                yerr=errors,
                color=look["color"],
                capsize=2,
                label=model,
            )
            axes.plot(places, [row["val_top1"] for row in own], "o", mfc="white", mec="#333333", markersize=5)
        axes.plot([], [], "o", mfc="white", mec="#333333", markersize=5, label="validation")
        axes.set_xticks(range(len(layers)), [name if len(name) < 12 else name.replace("@", "\n@") for name in layers])
        axes.grid(False, axis="x")
        axes.set_axisbelow(True)
        _finish(axes, rows, majority, "Linear layer on pooled features")
        legend_below(figure, [axes])
        return to_png(figure)


def _layer(row: Row) -> str:
    if isinstance(row["layer"], int):
        return f"layer {row['layer']}"
    return row["layer"] if row["num_tokens"] is None else f"{row['layer']}@{row['num_tokens']}"


def _order(layer: str) -> tuple[int, str, int, str]:
    """Make the sort key of a layer: patches, latents, hidden layers, then tokens, from few to many and before requests."""
    if layer.startswith("layer "):
        return int(layer.removeprefix("layer ")), "", 0, ""
    if layer in (PATCHES, LATENTS):
        return 0 if layer == LATENTS else -1, "", 0, ""
    name, _, request = layer.partition("@")
    return sys.maxsize, name, int(request) if request.isdecimal() else sys.maxsize, request


def _finish(axes: Axes, rows: Sequence[Row], majority: float, title: str) -> None:
    axes.axhline(majority, color=GREY, linestyle="--", linewidth=1, label="largest class")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_title(f"{title}: {', '.join(dict.fromkeys(row['dataset'] for row in rows))}")
