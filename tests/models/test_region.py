"""Rectangles, the bands inside them, and the mark in the first token."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dove.models.bands import LatentBands, cosine_basis
from dove.models.locator import all_rectangles, cell_masks, rectangle_of_boxes
from dove.models.region import RegionBands, RegionLayout, RegionMark, rectangle_code, span_bases

SIDE, CHANNELS = 4, 6
RECTANGLES = all_rectangles(SIDE)


def correlated(count: int) -> torch.Tensor:
    """Smooth random grids, (count, N, C)."""
    noise = torch.randn(count, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (SIDE, SIDE), mode="bilinear").flatten(2).transpose(1, 2)


def test_all_rectangles_are_there_once_and_the_first_is_empty() -> None:
    assert len(RECTANGLES) == 1 + (SIDE * (SIDE + 1) // 2) ** 2 == len(RECTANGLES.unique(dim=0))
    masks = cell_masks(RECTANGLES, SIDE)
    assert not masks[0].any()
    assert masks[1:].any(1).all()
    assert len(masks.unique(dim=0)) == len(masks)


def test_a_span_of_all_cells_has_the_basis_of_the_whole_grid() -> None:
    rows = span_bases(SIDE)[0, SIDE]
    torch.testing.assert_close(torch.kron(rows, rows).float(), cosine_basis(SIDE))


def test_bands_of_rectangles_come_back_exactly_and_nothing_outside() -> None:
    bands = RegionBands(SIDE, CHANNELS)
    latents = correlated(len(RECTANGLES))
    bands.fit(correlated(64))
    inside = cell_masks(RECTANGLES, SIDE)
    back = bands.merge(bands.split(latents, RECTANGLES), RECTANGLES)
    torch.testing.assert_close(back, latents * inside[..., None], atol=1e-4, rtol=1e-4)


def test_bands_use_as_many_positions_as_the_rectangle_has_cells() -> None:
    bands = RegionBands(SIDE, CHANNELS)
    split = bands.split(torch.randn(len(RECTANGLES), SIDE**2, CHANNELS), RECTANGLES)
    sizes = cell_masks(RECTANGLES, SIDE).sum(1)
    beyond = torch.arange(SIDE**2) >= sizes[:, None]
    assert split[beyond].abs().max() == 0


def test_expected_variance_is_that_of_the_data() -> None:
    """On stationary data: coefficients of a 2 x 3 rectangle, against the plain sum over pairs of cells."""
    bands = RegionBands(SIDE, CHANNELS)
    bands.fit(correlated(4000))
    basis = torch.kron(span_bases(SIDE)[0, 2, :2, :2], span_bases(SIDE)[0, 3, :3, :3])
    cells = [(row, column) for row in range(2) for column in range(3)]
    expected = []
    for frequency in basis:
        for channel in range(CHANNELS):
            expected.append(
                sum(
                    frequency[a] * frequency[b] * bands.autocorrelation[abs(p[0] - q[0]), abs(p[1] - q[1]), channel]
                    for a, p in enumerate(cells)
                    for b, q in enumerate(cells)
                )
            )
    strongest = torch.stack(expected).sort(descending=True).values.float().view(6, CHANNELS).mean(1).sqrt()
    torch.testing.assert_close(bands.scale[2, 3, :6], strongest, atol=1e-4, rtol=1e-4)


def test_first_bands_hold_more_than_the_last() -> None:
    bands = RegionBands(SIDE, CHANNELS)
    bands.fit(correlated(500))
    rectangle = torch.tensor([[1, 1, 4, 4]]).expand(500, -1)
    power = (bands.split(correlated(500), rectangle) * bands.scale[3, 3][:, None]).square().mean((0, 2))
    assert (power[:4] > 3 * power[5:9].mean()).all()


def test_layout_comes_back_exactly_inside_and_wholly_when_empty() -> None:
    whole, layout = LatentBands(SIDE, CHANNELS), RegionLayout(SIDE, CHANNELS, context=2)
    whole.fit(correlated(500))
    small = RECTANGLES[cell_masks(RECTANGLES, SIDE).sum(1) <= SIDE**2 - 2]
    latents = correlated(len(small))
    sequence = layout.split(latents, whole, small)
    back = layout.merge(sequence, whole, small)
    inside = layout.cells(small)[..., None]
    torch.testing.assert_close(back * inside, latents * inside, atol=1e-4, rtol=1e-4)
    empty = torch.zeros_like(small)
    assert torch.equal(layout.split(latents, whole, empty), whole.split(latents))
    assert torch.equal(layout.merge(sequence, whole, empty), whole.merge(sequence))


def test_outside_the_layout_has_the_bands_there_is_room_for() -> None:
    whole, layout = LatentBands(SIDE, CHANNELS), RegionLayout(SIDE, CHANNELS, context=2)
    whole.fit(correlated(500))
    latents = correlated(3)
    rectangle = torch.tensor([[0, 0, 2, 2]]).expand(3, -1)
    back = layout.merge(layout.split(latents, whole, rectangle), whole, rectangle)
    bands = whole.split(latents)
    bands[:, SIDE**2 - 4 :] = 0
    outside = ~layout.cells(rectangle)[..., None]
    torch.testing.assert_close(back * outside, whole.merge(bands) * outside, atol=1e-4, rtol=1e-4)


def test_mark_is_read_back_erased_and_absent_from_whole_pictures() -> None:
    mark, tokens = RegionMark(24, SIDE), torch.randn(len(RECTANGLES), 5, 24) * torch.linspace(2, 0.01, 24)
    mark.fit(tokens[:, 0])
    written = mark.write(tokens, RECTANGLES)
    assert torch.equal(written[0], tokens[0])
    assert torch.equal(written[:, 1:], tokens[:, 1:])
    assert torch.equal(mark.read(written), RECTANGLES)
    assert not mark.read(tokens).any()
    clean = mark.erase(written, mark.read(written))
    assert not mark.read(clean).any()
    kept = clean[:, 0] - tokens[:, 0]
    torch.testing.assert_close(kept, kept @ mark.directions @ mark.directions.T, atol=1e-4, rtol=1e-4)


def test_code_tells_all_rectangles_apart() -> None:
    codes = rectangle_code(RECTANGLES, SIDE)
    assert not codes[0].any()
    assert (codes[1:].sum(1) == 4).all()
    assert len(codes.unique(dim=0)) == len(codes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 31)] * 2, *[st.integers(1, 32)] * 2), min_size=1, max_size=4))
def test_rectangle_of_boxes_is_the_hull_of_their_cells(boxes: list[tuple[int, int, int, int]]) -> None:
    boxes = [(x, y, min(w, 32 - x), min(h, 32 - y)) for x, y, w, h in boxes]
    found = rectangle_of_boxes(torch.tensor(boxes).float(), torch.zeros(len(boxes)).long(), 2, 8, SIDE)
    assert not found[1].any()
    upper, left, lower, right = found[0].tolist()
    assert 0 <= upper < lower <= SIDE
    assert 0 <= left < right <= SIDE
    for x, y, w, h in boxes:
        assert left * 8 <= x + 1 or w == 1
        assert upper * 8 <= y + 1 or h == 1
        assert right * 8 >= x + w - 1
        assert lower * 8 >= y + h - 1
