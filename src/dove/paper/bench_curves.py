"""Diagram of a comparison's trainings: PSNR on held-out training photos against images seen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dove.evaluation.plots import GREY, legend_below, looks, panels, style, to_png
from dove.paper.bench import Row
from dove.paper.reports import FLAT, read_reports
from dove.runtime import save_outputs
from dove.training.presets import get_preset
from dove.training.progress import METRICS


def read_curves(rows: Sequence[Row], bench: Path) -> dict[str, list[tuple[int, float]]]:
    """Read images seen and PSNR at the greatest number of tokens of all rows whose samples give it, by label.

    Rows without a label, the earlier stages of others, are left out.
    """
    found = {}
    for row in rows:
        file = bench / row.name / METRICS
        if not row.preset or not row.label or not file.is_file():
            continue
        batch = get_preset(row.preset).run.batch_size
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        points = [(line["step"] * batch, at_most_tokens(line)) for line in lines]
        if curve := [(images, psnr) for images, psnr in points if psnr is not None]:
            found[row.label] = curve
    return found


def at_most_tokens(line: Mapping[str, int | float]) -> float | None:
    """Find the PSNR at the greatest fixed number of tokens, or from all codes, in a line of metrics; None without any."""
    counts = [int(name.removeprefix("psnr/")) for name in line if name.startswith("psnr/") and name[5:].isdigit()]
    return line[f"psnr/{max(counts)}"] if counts else line.get("psnr/quantized")


def plot_curves(curves: Mapping[str, list[tuple[int, float]]], flat: float | None) -> bytes:
    """Plot all trainings on the same axes, with the flat colour as a grey line."""
    with style():
        figure, axes = panels(1, 1, width=8.0, height=4.0)
        for label, look in looks(curves).items():
            images, values = zip(*curves[label], strict=True)
            axes[0].plot([count / 1000 for count in images], values, **look, label=label)
        if flat is not None:
            axes[0].axhline(flat, color=GREY, linestyle="--", linewidth=1, label=FLAT)
        axes[0].set(xlabel="thousand images", ylabel="PSNR, held out (dB)")
        legend_below(figure, axes)
        return to_png(figure)


def write_curves(rows: Sequence[Row], bench: Path, reports: Path) -> None:
    """Write training.png to a folder of reports, if a training has got far enough to have a curve."""
    if curves := read_curves(rows, bench):
        flat = read_reports([reports]).values("reconstruction", FLAT, "psnr", {}) if reports.is_dir() else []
        save_outputs({reports / "training.png": plot_curves(curves, flat[0] if flat else None)})
