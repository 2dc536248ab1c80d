"""The change of basis between latents and bands."""

import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.models.bands import LatentBands, PictureBands, cell_frequencies, cosine_basis, cosines, joined_cosines


@given(side=st.integers(1, 9))
def test_cosine_basis_is_orthonormal(side: int) -> None:
    basis = cosine_basis(side)
    torch.testing.assert_close(basis @ basis.T, torch.eye(side**2), atol=1e-5, rtol=0)


def test_cosine_basis_is_scipys_dct() -> None:
    grid = torch.randn(5, 5, dtype=torch.float64)
    expected = scipy.fft.dctn(grid.numpy(), norm="ortho")
    ours = cosine_basis(5).double() @ grid.flatten()
    torch.testing.assert_close(ours, torch.from_numpy(expected).flatten(), atol=1e-6, rtol=0)


@given(side=st.integers(1, 5), channels=st.integers(1, 6), seed=st.integers(0, 99))
def test_merge_inverts_split(side: int, channels: int, seed: int) -> None:
    latents = torch.randn(7, side**2, channels, generator=torch.Generator().manual_seed(seed))
    bands = LatentBands(side, channels)
    bands.fit(3 * latents + 1)
    torch.testing.assert_close(bands.merge(bands.split(latents)), latents, atol=1e-4, rtol=1e-4)


def test_bands_are_sorted_centred_and_of_unit_scale() -> None:
    latents = torch.randn(500, 16, 4) * torch.tensor([0.1, 3.0, 1.0, 0.01]) + 5
    bands = LatentBands(4, 4)
    bands.fit(latents)
    split = bands.split(latents)
    torch.testing.assert_close(split.mean(0), torch.zeros(16, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(split.var(0).mean(1), torch.ones(16), atol=0.02, rtol=0)
    assert (bands.scale.diff(dim=0) <= 0).all()


def test_first_bands_hold_more_than_the_same_number_of_grid_cells() -> None:
    ramp = torch.linspace(0, 1, 16)[None, :, None] * torch.randn(200, 1, 4)
    bands = LatentBands(4, 4)
    bands.fit(ramp)
    kept = bands.split(ramp)
    kept[:, 4:] = 0
    error = (bands.merge(kept) - ramp).square().mean()
    assert error < 0.02 * ramp.var()


def test_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        LatentBands(2, 2).fit(torch.zeros(1, 4, 2))


@given(side=st.integers(1, 4), channels=st.integers(3, 30), cell=st.integers(1, 5), seed=st.integers(0, 99))
def test_picture_bands_are_an_orthonormal_change_of_basis(side: int, channels: int, cell: int, seed: int) -> None:
    latents = torch.randn(5, side**2, channels, generator=torch.Generator().manual_seed(seed))
    bands = PictureBands(side, channels, cell)
    torch.testing.assert_close(bands.coefficients(latents).norm(dim=1), latents.flatten(1).norm(dim=1))
    bands.fit(3 * latents + 1)
    torch.testing.assert_close(bands.merge(bands.split(latents)), latents, atol=1e-4, rtol=1e-4)


def test_picture_bands_hold_scipys_dct_of_the_picture() -> None:
    side, cell = 3, 4
    picture = torch.randn(2, 3, side * cell, side * cell, dtype=torch.float64)
    cells = picture.unflatten(3, (side, cell)).unflatten(2, (side, cell))  # (B, colour, row, y, column, x)
    waves = torch.einsum("bcrysx,uy,vx->brscuv", cells, cosines(cell), cosines(cell))
    latents = waves.flatten(3).flatten(1, 2).float()
    expected = torch.from_numpy(scipy.fft.dctn(picture.numpy(), axes=(2, 3), norm="ortho")).flatten(1).float()
    bands = PictureBands(side, 3 * cell**2, cell)
    torch.testing.assert_close(bands.coefficients(latents), expected, atol=1e-5, rtol=1e-5)


@given(cell=st.integers(1, 9), channels=st.integers(3, 250))
def test_frequencies_fit_into_the_channels(cell: int, channels: int) -> None:
    luma, *chromas = cell_frequencies(cell, channels)
    assert luma[0] * luma[1] + sum(rows * columns for rows, columns in chromas) <= channels
    assert all(1 <= side <= cell for pair in (luma, *chromas) for side in pair)


def test_all_frequencies_are_held_where_there_is_room() -> None:
    assert cell_frequencies(8, 192) == ((8, 8), (8, 8), (8, 8))
    assert cell_frequencies(8, 176)[0] == (8, 8)


@given(side=st.integers(1, 4), cell=st.integers(2, 6), kept=st.integers(1, 6))
def test_lines_of_few_frequencies_begin_like_cosines(side: int, cell: int, kept: int) -> None:
    found = joined_cosines(side, cell, min(kept, cell))
    torch.testing.assert_close(found @ found.T, torch.eye(len(found)), atol=1e-5, rtol=0)
    constant = found[0] @ torch.kron(torch.ones(side), torch.eye(min(kept, cell))[0])
    assert constant > 0.95 * side**0.5
