import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.photos.tiling import Tiling, starts, weights

tilings = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 11)).map(
    lambda t: Tiling(height=t[0], width=t[1], tile=t[2], overlap=min(t[3], t[2] - 1))
)


@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 19))
def test_tiles_cover_every_pixel_and_share_the_overlap(length, tile, overlap):
    overlap = min(overlap, tile - 1)
    found = starts(length, tile, overlap)
    assert found[0] == 0
    assert found[-1] == max(0, length - tile)
    assert all(0 < b - a <= tile - overlap for a, b in zip(found[:-1], found[1:], strict=True))


@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 19))
def test_weights_are_positive_and_sum_to_one(length, tile, overlap):
    edges = starts(length, tile, min(overlap, tile - 1))
    total = np.zeros(max(length, tile))
    for edge, row in zip(edges, weights(edges, tile), strict=True):
        assert (row > 0).all()
        total[edge : edge + tile] += row
    np.testing.assert_allclose(total, 1, atol=1e-12)


@given(tilings, st.integers(0, 99))
def test_untouched_tiles_give_the_picture_back(tiling, seed):
    picture = np.random.default_rng(seed).random((3, tiling.height, tiling.width)).astype(np.float32)
    tiles = tiling.split(picture)
    assert tiles.shape == (len(tiling.rows) * len(tiling.columns), 3, tiling.tile, tiling.tile)
    np.testing.assert_allclose(tiling.join(tiles), picture, atol=1e-6)


def test_a_step_between_tiles_becomes_a_slope():
    tiling = Tiling(height=8, width=12, tile=8, overlap=4)
    tiles = np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))]).astype(np.float32)
    row = tiling.join(tiles)[0, 3]
    assert row[:4].tolist() == [0] * 4
    assert row[8:].tolist() == [1] * 4
    np.testing.assert_allclose(row[4:8], [0.2, 0.4, 0.6, 0.8], atol=1e-6)


def test_tilings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="overlap of 8 px"):
        Tiling(height=9, width=9, tile=8, overlap=8)
    with pytest.raises(UserError, match="0x9 px"):
        Tiling(height=9, width=0, tile=8, overlap=4)


@given(tilings, st.integers(1, 7), st.integers(0, 99))
def test_bands_come_in_order_from_portions_of_any_size(tiling, portion, seed):
    tiles = np.random.default_rng(seed).random((len(tiling), 2, tiling.tile, tiling.tile))
    whole = np.zeros((2, max(tiling.height, tiling.tile), max(tiling.width, tiling.tile)))
    down, across = weights(tiling.rows, tiling.tile), weights(tiling.columns, tiling.tile)
    for number, tile in enumerate(tiles):
        i, j = divmod(number, len(tiling.columns))
        y, x = tiling.rows[i], tiling.columns[j]
        whole[:, y : y + tiling.tile, x : x + tiling.tile] += tile * np.outer(down[i], across[j])
    bands = list(tiling.bands(tiles[start : start + portion] for start in range(0, len(tiles), portion)))
    assert max(band.shape[1] for band in bands) <= tiling.tile
    np.testing.assert_allclose(np.concatenate(bands, axis=1), whole[:, : tiling.height, : tiling.width], atol=1e-12)


def test_some_tiles_are_a_slice_of_all():
    tiling = Tiling(height=20, width=27, tile=8, overlap=3)
    picture = np.arange(3 * 20 * 27, dtype=np.int64).reshape(3, 20, 27)
    np.testing.assert_array_equal(tiling.split(picture, slice(4, 9)), tiling.split(picture)[4:9])


def test_a_missing_tile_is_no_picture():
    tiling = Tiling(height=8, width=12, tile=8, overlap=4)
    with pytest.raises(ValueError, match="shorter"):
        tiling.join(np.zeros((1, 3, 8, 8), np.float32))
