"""Diagrams of the probes."""

import sys
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from dove.evaluation.feature_cache import LATENTS, PATCHES, FeatureSource
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
    layers = sorted({_source(row) for row in rows}, key=layer_order)
    models = by_model(rows)
    step = 0.8 / len(models)
    ring: dict[str, Any] = {"linestyle": "", "marker": "o", "mfc": "white", "mec": "#333333", "markersize": 5}
    with style():
        figure, (axes,) = panels(1, 1, width=max(6.4, 1.1 * len(layers) + 2), height=4.0)
        for number, (model, own, look) in enumerate(models):
            places = [layers.index(_source(row)) + (number + 0.5) * step - 0.4 for row in own]
            test, errors, validation = ([row[name] for row in own] for name in ("top1", "top1_stderr", "val_top1"))
            axes.bar(places, test, 0.9 * step, yerr=errors, color=look["color"], capsize=2, label=model)
            axes.plot(places, validation, **ring)
        axes.plot([], [], **ring, label="validation")
        names = map(str, layers)
        axes.set_xticks(range(len(layers)), [name if len(name) < 12 else name.replace("@", "\n@") for name in names])
        axes.grid(False, axis="x")
        _finish(axes, rows, majority, "Linear layer on pooled features")
        legend_below(figure, [axes])
        return to_png(figure)


def _source(row: Row) -> FeatureSource:
    return FeatureSource(row["layer"], None if row["num_tokens"] is None else str(row["num_tokens"]))


def layer_order(source: FeatureSource) -> tuple[int, int, str]:
    """Make a sort key: patches, latents, hidden layers, then tokens, from few to many and before requests."""
    request = source.num_tokens or ""
    place = source.layer if isinstance(source.layer, int) else {PATCHES: -1, LATENTS: 0}.get(source.layer, sys.maxsize)
    return place, int(request) if request.isdecimal() else sys.maxsize, request


def _finish(axes: Axes, rows: Sequence[Row], majority: float, title: str) -> None:
    axes.axhline(majority, color=GREY, linestyle="--", linewidth=1, label="largest class")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_title(f"{title}: {', '.join(dict.fromkeys(row['dataset'] for row in rows))}")
