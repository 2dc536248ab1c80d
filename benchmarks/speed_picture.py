"""The diagrams of a report of benchmarks/speed.py.

    python benchmarks/speed_picture.py speed.json speed.png

Left: what encoding costs by the number of tokens, relative to all of them. Right: how many times as fast as the
straightforward composition in fp32 everything is that was measured in batches of the same size.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from dove.evaluation.plots import COLOURS, panels, style, to_png

NAMES = {"ours": "dove-base", "patch": "dove-base-patch", "composition": "composition"}
Row = Mapping[str, Any]


def plot_lengths(axes: Axes, rows: Sequence[Row]) -> None:
    """Seconds of encoding by number of tokens, relative to the most."""
    for colour, system in zip(COLOURS, ("ours", "patch"), strict=False):
        points = sorted(
            (row["tokens"], row["seconds"])
            for row in rows
            if (row["system"], row["work"], row["precision"]) == (system, "encode", "bf16")
        )
        if len(points) > 1:
            tokens, seconds = zip(*points, strict=True)
            relative = [value / seconds[-1] for value in seconds]
            axes.plot(tokens, relative, "o-", color=colour, label=NAMES[system])
    axes.set_title("Encoding by number of tokens, bf16")
    axes.set_xlabel("tokens")
    axes.set_ylabel("time, relative to all tokens")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.08)
    axes.legend(loc="lower right")


def plot_systems(axes: Axes, rows: Sequence[Row]) -> None:
    """Images per second at the most tokens, relative to the composition in fp32."""
    full = {(row["system"], row["precision"], row["work"]): row["images_per_second"] for row in most_tokens(rows)}
    systems = [pair for pair in dict.fromkeys(key[:2] for key in full) if (*pair, "decode") in full]
    height = 0.38
    for offset, (work, colour) in enumerate(zip(("encode", "decode"), COLOURS, strict=False)):
        unit = full["composition", "fp32", work]
        values = [full[*pair, work] / unit for pair in systems]
        places = [place + (offset - 0.5) * height for place in range(len(systems))]
        for bar, value in zip(axes.barh(places, values, height, color=colour, label=work), values, strict=True):
            axes.annotate(f" {value:.1f}", (bar.get_width(), bar.get_y() + height / 2), va="center", fontsize=10)
    axes.set_yticks(range(len(systems)), [f"{NAMES.get(name, name)}, {precision}" for name, precision in systems])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=2 * axes.dataLim.x1)
    axes.set_title("Times as fast as the composition in fp32")
    axes.set_xlabel("images per second, relative")
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.legend(loc="lower right")


def most_tokens(rows: Sequence[Row]) -> list[Row]:
    """The rows of each system at its full length, in batches of the larger size."""
    size = max(row["batch_size"] for row in rows)
    most = {row["system"]: max(other["tokens"] for other in rows if other["system"] == row["system"]) for row in rows}
    return [row for row in rows if row["batch_size"] == size and row["tokens"] == most[row["system"]]]


def picture(rows: Sequence[Row]) -> bytes:
    """Both diagrams as PNG."""
    with style():
        figure, (left, right) = panels(1, 2, width=5.2, height=3.6)
        plot_lengths(left, [row for row in rows if row["batch_size"] == max(other["batch_size"] for other in rows)])
        plot_systems(right, rows)
        return to_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", type=Path, help="what benchmarks/speed.py --json wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    options = parser.parse_args()
    rows = json.loads(options.report.read_text(encoding="utf-8"))["rows"]
    options.picture.write_bytes(picture(rows))


if __name__ == "__main__":
    main()
