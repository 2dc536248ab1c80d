import numpy as np
import pytest
from PIL import Image

from dove.photos.tile_picture import PANEL, TiledRow, borders, draw_tiled, shrink
from dove.photos.tiling import Tiling


def make_row(width: int, height: int, lengths: list[list[int]]) -> TiledRow:
    photo = Image.new("RGB", (width, height), "white")
    return TiledRow(
        photo=shrink(photo),
        rebuilt=[shrink(photo)],
        captions=[("name.png", "size"), ("auto", "3 tokens")],
        tiling=Tiling(height=height, width=width, tile=16, overlap=4),
        lengths=[np.array(lengths)],
    )


def test_cells_end_in_the_middle_of_overlaps() -> None:
    assert borders([0, 12, 24], 16, 40).tolist() == [0, 14, 26, 40]
    assert borders([0], 16, 5).tolist() == [0, 5]


def test_maps_are_darker_where_more_tokens_went() -> None:
    row = make_row(28, 16, [[1, 16]])
    picture = np.asarray(draw_tiled([row]).convert("L"), dtype=float)
    assert (picture[-30:] > 250).all()  # the margin
    height = row.photo.height
    below = picture[-36 - 84 - height : -36 - 84]  # the map's rows
    right = below[:, below.shape[1] // 2 :]
    columns = np.flatnonzero((right < 250).any(0))
    left, end = columns[0], columns[-1]
    middle = (left + end) // 2
    assert right[:, left + 5 : middle - 5].mean() > right[:, middle + 5 : end - 5].mean() + 60


@pytest.mark.parametrize("size", [(2000, 100), (100, 2000), (3, 3), (1, 1)])
def test_photos_of_any_shape_have_a_place(size: tuple[int, int]) -> None:
    row = make_row(*size, [[1]])
    tiling = row.tiling
    lengths = np.ones((len(tiling.rows), len(tiling.columns)), np.int64)
    wide = TiledRow(photo=row.photo, rebuilt=row.rebuilt, captions=row.captions, tiling=tiling, lengths=[lengths])
    assert max(row.photo.size) == PANEL
    assert draw_tiled([wide, make_row(28, 16, [[1, 16]])]).width > 2 * max(row.photo.width, 200)
