"""Budgets against exhaustive answers."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from torch import Tensor

from dove.lengths import Budget
from dove.lengths.budget import isotonic_gains, spend
from dove.models.eos import EosScores

errors = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 40), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


def best(curves: np.ndarray, total: int) -> float:
    """The least sum over all ways to spend ``total``."""
    count, capacity = curves.shape
    ways = (way for way in product(range(1, capacity + 1), repeat=count) if sum(way) == total)
    return min(sum(curves[b, k - 1] for b, k in enumerate(way)) for way in ways)


def reached(curves: np.ndarray, lengths: Tensor) -> float:
    return float(curves[np.arange(len(curves)), lengths.numpy() - 1].sum())


@given(errors, st.data())
def test_convex_errors_are_spent_exactly(rows: list[list[int]], data: st.DataObject) -> None:
    steps = -np.sort(-np.abs(np.diff(np.array(rows, dtype=float), axis=1)), axis=1)  # gains that never rise
    start = np.array(rows, dtype=float)[:, :1]
    curves = start - np.concatenate([np.zeros_like(start), steps.cumsum(1)], axis=1)
    total = data.draw(st.integers(curves.shape[0], curves.size))
    lengths = spend(torch.from_numpy(curves), total)
    assert lengths.sum() == total
    assert reached(curves, lengths) == pytest.approx(best(curves, total))


@given(errors, st.data())
def test_any_errors_are_within_one_stretch_of_the_optimum(rows: list[list[int]], data: st.DataObject) -> None:
    curves = np.array(rows, dtype=float)
    curves += 1e-3 * np.random.default_rng(0).random(curves.shape)  # no two stretches gain exactly the same
    total = data.draw(st.integers(curves.shape[0], curves.size))
    lengths = spend(torch.from_numpy(curves), total)
    assert lengths.sum() == total
    assert lengths.min() >= 1
    assert lengths.max() <= curves.shape[1]
    gains = np.array([isotonic_gains(row[:-1] - row[1:]) for row in curves])
    hull = curves[:, :1] - np.concatenate([np.zeros((len(curves), 1)), gains.cumsum(1)], axis=1)
    # One image at most lies above its hull, and the hull's own optimum is below the best there is.
    above = curves[np.arange(len(curves)), lengths.numpy() - 1] - hull[np.arange(len(curves)), lengths.numpy() - 1]
    assert (above > 1e-9).sum() <= 1
    assert reached(curves, lengths) - above.sum() <= best(curves, total) + 1e-9


def test_the_gain_behind_a_flat_stretch_is_seen() -> None:
    late = [10.0, 10.0, 10.0, 1.0]  # 9 for three tokens
    early = [10.0, 8.0, 7.5, 7.0]  # 2, then next to nothing
    assert spend(torch.tensor([late, early]), 5).tolist() == [4, 1]
    assert spend(torch.tensor([late, early]), 6).tolist() == [4, 2]


@given(st.lists(st.floats(-5, 5), max_size=12))
def test_gains_are_the_isotonic_regression(gains: list[float]) -> None:
    expected = isotonic_regression(gains, increasing=False).x if gains else []
    np.testing.assert_allclose(isotonic_gains(np.array(gains)), expected, atol=1e-9)


def test_gains_that_are_all_alike_are_shared_out() -> None:
    assert spend(torch.linspace(9, 1, 5).expand(3, -1), 8).tolist() == [3, 3, 2]


@given(st.integers(1, 7), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_the_mean_is_kept_and_more_never_takes_away(
    count: int, capacity: int, low: float, high: float, seed: int
) -> None:
    quality = 40 * torch.rand(count, capacity, generator=torch.Generator().manual_seed(seed))
    eos = EosScores(probability=quality, margin=quality, quality=quality)
    few, many = (1 + share * (capacity - 1) for share in sorted((low, high)))
    lengths = Budget(few).lengths(eos)
    assert few - 1 / count - 1e-5 < lengths.double().mean() <= few + 1e-5
    assert (Budget(many).lengths(eos) >= lengths).all()


def test_rounding_takes_no_token_away() -> None:
    quality = torch.rand(10, 16)
    eos = EosScores(probability=quality, margin=quality, quality=quality)
    assert Budget(4.3).lengths(eos).sum() == 43
