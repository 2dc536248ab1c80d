"""Diagram of the speed evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from dove.evaluation.plots import legend_below, looks, panels, short_name, style, to_png

PANELS = {
    "encode_images_per_second": ("Encoding", "images per second", 1.0),
    "decode_images_per_second": ("Decoding", "images per second", 1.0),
    "lm_multiply_adds": ("Encoder and language model", "multiply-adds (10¹²)", 1e12),
}  # Column: title, axis label and unit


def plot_speed(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot speeds, where measured, and operations against the number of tokens; the paper's operations as crosses."""
    shown = [column for column in PANELS if any(row[column] is not None for row in rows)]
    rows = [{**row, "model": short_name(row["model"])} for row in rows]
    with style():
        figure, axes = panels(1, len(shown))
        for column, panel in zip(shown, axes, strict=True):
            for model, look in looks(row["model"] for row in rows).items():
                mine = [row for row in rows if row["model"] == model and row[column] is not None]
                _plot_model(panel, mine, column, look)
            title, label, _ = PANELS[column]
            panel.set_title(title)
            panel.set_ylabel(label)
            panel.set_xlabel("tokens (mean over images)")
            panel.set_xlim(0, panel.dataLim.x1 * 1.06)
            panel.set_ylim(0, panel.dataLim.y1 * 1.08)
        legend_below(figure, axes)
        return to_png(figure)


def _plot_model(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str, look: Mapping[str, Any]) -> None:
    unit = PANELS[column][2]
    points = sorted((row["mean_length"], row[column] / unit) for row in rows)
    if points:
        axes.plot(*zip(*points, strict=True), **look, label=_label(rows[0]))
    printed = [(row["mean_length"], row["paper_tera"]) for row in rows if "paper_tera" in row]
    if column == "lm_multiply_adds" and printed:
        name = f"{rows[0]['model']}, printed in the paper"
        axes.plot(*zip(*printed, strict=True), "x", color=look["color"], markersize=8, label=name)


def _label(row: Mapping[str, Any]) -> str:
    return row["model"] if row["weights"] == "checkpoint" else f"{row['model']} ({row['weights']})"
