"""Which lengths a step draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.training.draws import length_shares, spread_draws


@given(
    capacity=st.integers(1, 70),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    rest=st.floats(0.01, 1),
)
def test_shares_are_a_distribution(capacity: int, parts: tuple[float, ...], rest: float) -> None:
    total = sum(parts) + rest
    shares = length_shares(capacity, *(part / total for part in parts))
    assert len(shares) == capacity
    assert shares.min() >= 0
    assert shares.sum().item() == pytest.approx(1, abs=1e-5)


@given(prefixes=st.integers(1, 5), images=st.integers(1, 9), capacity=st.integers(1, 40), seed=st.integers(0, 999))
def test_an_images_prefixes_cover_the_range_evenly(prefixes: int, images: int, capacity: int, seed: int) -> None:
    found = spread_draws(length_shares(capacity), images, prefixes, torch.Generator().manual_seed(seed))
    assert found.shape == (prefixes, images)
    bounds = torch.arange(prefixes + 1)[:, None] * capacity / prefixes
    ordered = found.sort(dim=0).values
    assert (ordered > bounds[:-1] - 1e-3).all()
    assert (ordered < bounds[1:] + 1).all()


@given(images=st.integers(1, 40), seed=st.integers(0, 999))
def test_a_steps_images_cover_the_range_evenly(images: int, seed: int) -> None:
    found = spread_draws(length_shares(images), images, 1, torch.Generator().manual_seed(seed))
    assert sorted(found[0].tolist()) == list(range(1, images + 1))
