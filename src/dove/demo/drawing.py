"""HTML of the web page: two pictures under one slider, the map of tokens, the curve of quality."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from PIL import Image

from dove.demo.encoded import Encoded, Point, Rebuilt
from dove.photos.tile_picture import borders
from dove.photos.tiling import Tiling

INK = "#010203"
"""Colour in the diagram that the page replaces by the colour of its text, light or dark."""
ACCENT, OTHER = "#0d9488", "#8a8f98"
STYLES = (("o-", ACCENT), ("s--", OTHER), ("^:", OTHER))  # Markers, lines and colours of the curve
BEST = 60.0  # Quality in dB at which the curve ends: no eye tells better ones apart
DRAG = (
    "if(event.buttons||event.type==='click'){const b=this.getBoundingClientRect();"
    "const at=Math.min(100,Math.max(0,100*(event.clientX-b.left)/b.width));"
    "document.documentElement.style.setProperty('--at',at+'%');"
    "const s=document.getElementById('at');if(s)s.value=at}"
)
DIVIDER = (
    '<label class="divider"><span>original</span><input id="at" type="range" min="0" max="100" value="50" '
    'aria-label="where the original ends and the rebuilt picture begins" '
    "oninput=\"document.documentElement.style.setProperty('--at',this.value+'%')\"><span>rebuilt</span></label>"
)
CSS = (files("dove.demo") / "page.css").read_text(encoding="utf-8").replace("ACCENT", ACCENT)


def pair(encoded: Encoded, rebuilt: Rebuilt) -> str:
    """Lay a photo, its reconstruction and its map of tokens over one another."""
    return (
        f'<div class="pair" onpointermove="{DRAG}" onclick="{DRAG}">'
        f'<img alt="original" src="{_uri(encoded.photo)}">'
        f'<img alt="rebuilt" class="rebuilt" src="{_uri(rebuilt.picture)}">'
        f"{token_map(encoded.tiling, rebuilt.lengths.tolist())}</div>"
    )


def hint(text: str) -> str:
    """Frame a text in the place of the pictures."""
    return f'<div class="hint">{escape(text)}</div>'


def token_map(tiling: Tiling, lengths: Sequence[Sequence[int]]) -> str:
    """Draw the tokens of every tile, as an SVG over the photo: the more, the stronger its colour."""
    across = borders(tiling.columns, tiling.tile, tiling.width)
    down = borders(tiling.rows, tiling.tile, tiling.height)
    most = max(map(max, lengths))
    cells = []
    for (y, lower), numbers in zip(pairwise(down), lengths, strict=True):
        for (x, right), number in zip(pairwise(across), numbers, strict=True):
            size = min(right - x, lower - y) * 0.34
            cells.append(
                f'<rect x="{x:g}" y="{y:g}" width="{right - x:g}" height="{lower - y:g}" fill="{ACCENT}" '
                f'fill-opacity="{0.1 + 0.65 * number / most:.2f}" stroke="white" stroke-opacity="0.35" '
                f'stroke-width="0.6"/><text x="{(x + right) / 2:g}" y="{(y + lower) / 2:g}" font-size="{size:g}" '
                f'fill="white" stroke="black" stroke-width="{size / 7:g}" paint-order="stroke" text-anchor="middle" '
                f'dominant-baseline="central" font-family="system-ui, sans-serif">{number}</text>'
            )
    return f'<svg viewBox="0 0 {tiling.width} {tiling.height}" preserveAspectRatio="none">{"".join(cells)}</svg>'


def curve(lines: Mapping[str, Sequence[Point]], auto: Point) -> str:
    """Draw quality against the mean number of tokens, as an SVG in the colours of the page: up to three lines, and ``auto``."""
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for (label, points), (style, colour) in zip(lines.items(), STYLES, strict=False):
        kept = [point for point in points if point.psnr <= BEST]
        tokens, quality = [point.tokens for point in kept], [point.psnr for point in kept]
        axes.plot(tokens, quality, style, color=colour, label=label, markersize=4)
    axes.plot(auto.tokens, min(auto.psnr, BEST), "D", color=INK, markersize=7, fillstyle="none", label="auto")
    axes.set_xscale("log", base=2)
    means = sorted({round(point.tokens) for points in lines.values() for point in points})
    axes.xaxis.set_major_locator(FixedLocator(means))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("mean number of tokens a tile", color=INK)
    axes.set_ylabel("PSNR in dB", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=OTHER, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(OTHER)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return f'<div class="curve">{drawing[drawing.index("<svg") :].replace(INK, "currentColor")}</div>'


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
