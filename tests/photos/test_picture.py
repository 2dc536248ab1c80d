"""Grids of captioned images."""

from PIL import Image, ImageColor

from dove.photos.picture import CELL, MARGIN, OUTLINE, Cell, side_by_side


def test_boxes_are_outlined_where_they_lie() -> None:
    picture = side_by_side(
        [[Cell(Image.new("RGB", (32, 32)), "a box", [(8, 16, 8, 4)]), Cell(Image.new("RGB", (32, 32)), "none")]]
    )
    colour, scale = ImageColor.getrgb(OUTLINE), CELL // 32
    for x, y in ((8, 16), (16, 16), (8, 20), (16, 20)):
        assert picture.getpixel((MARGIN + x * scale, MARGIN + y * scale)) == colour
    assert picture.getpixel((MARGIN + 12 * scale, MARGIN + 18 * scale)) == (0, 0, 0)
