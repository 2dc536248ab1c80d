"""The change of basis between latents and bands."""

import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.models.bands import LatentBands, cosine_basis


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
