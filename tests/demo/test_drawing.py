"""HTML of the demo's page."""

import re
from xml.etree import ElementTree

from dove.demo.drawing import INK, curve, token_map
from dove.demo.encoded import Point
from dove.photos.tiling import Tiling


def test_the_map_covers_the_photo_with_a_number_in_every_tile() -> None:
    tiling = Tiling(height=30, width=50, tile=20, overlap=4)
    lengths = [[1, 2, 3], [4, 5, 64]]
    assert (len(tiling.rows), len(tiling.columns)) == (2, 3)
    drawing = ElementTree.fromstring(token_map(tiling, lengths))
    assert [text.text for text in drawing.iter("text")] == ["1", "2", "3", "4", "5", "64"]
    areas = [float(cell.get("width", 0)) * float(cell.get("height", 0)) for cell in drawing.iter("rect")]
    assert sum(areas) == 50 * 30
    opacities = [float(cell.get("fill-opacity", 0)) for cell in drawing.iter("rect")]
    assert opacities == sorted(opacities)


def test_the_curve_is_in_the_colours_of_the_page() -> None:
    points = [Point(1, 20.0), Point(2, 25.0), Point(4, 99.0)]
    drawing = curve({"tokens": points, "cosines": points, "JPEG": points[1:]}, Point(1.5, 22.0))
    assert INK not in drawing
    assert "currentColor" in drawing
    for word in ("auto", "cosines", "JPEG", "PSNR in dB"):
        assert re.search(rf">{word}<", drawing)
