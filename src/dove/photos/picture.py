"""Grids of captioned images as one picture."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

CELL = 192  # Least side of an image in the picture, in pixels; smaller images are enlarged by a whole factor
MARGIN, GAP, CAPTION = 24, 16, 36
FONT_SIZE, LEAST_FONT_SIZE = 18, 12
INK, PAPER, OUTLINE = "#222222", "#ffffff", "#ff2fd0"


class Cell(NamedTuple):
    """Image and the caption below it; all images of one picture have the same size.

    Attributes:
        boxes: outlined in the image; x, y, width and height in its pixels.
    """

    image: Image.Image
    caption: str
    boxes: Sequence[tuple[float, float, float, float]] = ()


def side_by_side(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Draw rows of cells below one another, on white."""
    width = rows[0][0].image.width
    side = width * max(1, -(-CELL // width))
    columns = max(map(len, rows))
    size = (2 * MARGIN + columns * (side + GAP) - GAP, 2 * MARGIN + len(rows) * (side + CAPTION))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            left, top = MARGIN + column * (side + GAP), MARGIN + row * (side + CAPTION)
            picture.paste(cell.image.resize((side, side), Image.Resampling.BICUBIC), (left, top))
            for box in cell.boxes:
                x, y, across, down = (part * side / width for part in box)
                draw.rectangle((left + x, top + y, left + x + across, top + y + down), outline=OUTLINE, width=2)
            caption, font = fit_caption(cell.caption, side)
            draw.text((left + side / 2, top + side + CAPTION * 0.4), caption, fill=INK, font=font, anchor="mm")
    return picture


def fit_caption(text: str, width: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Fit a caption to ``width`` pixels; return the text and its font."""
    for size in range(FONT_SIZE, LEAST_FONT_SIZE - 1, -1):
        font = ImageFont.load_default(size)
        if font.getlength(text) <= width:
            return text, font
    kept = text
    while kept and font.getlength(f"…{kept}") > width:
        kept = kept[1:]
    return f"…{kept}", font


def encode_picture(picture: Image.Image, suffix: str) -> bytes:
    """Encode a picture in the format of ``suffix``, such as ``.png``."""
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions()[suffix.lower()])
    return buffer.getvalue()
