import numpy as np
import pytest
from PIL import Image

from dove.photos.tile_picture import PANEL, TiledRow, borders, draw_tiled
from dove.photos.tiling import Tiling


def make_row(width: int, height: int, lengths: list[list[int]]) -> TiledRow:
    photo = Image.new("RGB", (width, height), "white")
    return TiledRow(
        photo=photo,
        rebuilt=[photo],
        captions=["name.png\nsize", "auto\n3 tokens"],
        tiling=Tiling(height=height, width=width, tile=16, overlap=4),
        lengths=[np.array(lengths)],
    )


def test_cells_end_in_the_middle_of_overlaps() -> None:
    assert borders([0, 12, 24], 16, 40).tolist() == [0, 14, 26, 40]
    assert borders([0], 16, 5).tolist() == [0, 5]


def test_maps_are_darker_where_more_tokens_went() -> None:
    row = make_row(28, 16, [[1, 16]])
    picture = np.asarray(draw_tiled([row]).convert("L"), dtype=float)
    right = picture[picture.shape[0] // 2 :, picture.shape[1] // 2 :]
    right = right[(right < 250).any(1)]  # the map's rows
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
    assert draw_tiled([wide, make_row(28, 16, [[1, 16]])]).width > 2 * PANEL
