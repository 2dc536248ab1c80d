"""Lengths that a step draws."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.training.objectives import draw_lengths


@given(count=st.integers(1, 40), capacity=st.integers(1, 40), seed=st.integers(0, 999))
def test_lengths_stay_within_one_cap_and_the_capacity(count: int, capacity: int, seed: int) -> None:
    caps = (2, 9, 100)
    found = draw_lengths(count, capacity, caps, (0.3, 0.3, 0.4), torch.Generator().manual_seed(seed))
    assert found.shape == (count,)
    assert found.min() >= 1
    assert found.max() <= capacity


def test_lengths_are_log_uniform_and_caps_come_as_often_as_their_shares() -> None:
    draws = torch.Generator().manual_seed(0)
    steps = [draw_lengths(50, 64, (4, 64), (0.25, 0.75), draws) for _ in range(400)]
    short = sum(int(lengths.max()) <= 4 for lengths in steps) / len(steps)
    assert 0.2 < short < 0.3
    long = torch.cat([lengths for lengths in steps if lengths.max() > 4])
    # P(length = 1) is log(2) / log(65) where lengths go up to 64.
    assert abs((long == 1).float().mean().item() - 0.166) < 0.01
    assert abs((long > 8).float().mean().item() - 0.474) < 0.02


@given(seed=st.integers(0, 999))
def test_the_images_of_a_step_lie_evenly(seed: int) -> None:
    found = draw_lengths(64, 7, (7,), (1.0,), torch.Generator().manual_seed(seed))
    # The places of 64 images cut the range into equal parts, so counts differ from the shares by at most one.
    counts = torch.bincount(found, minlength=8)[1:]
    shares = 64 * torch.log1p(1 / torch.arange(1, 8)) / torch.log(torch.tensor(8.0))
    assert (counts - shares).abs().max() < 2
