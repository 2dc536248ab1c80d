"""Discrete tokens: levels, ids, gradients, and what a tokenizer with them starts from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.config import DoveConfig, DoveTrainConfig, QDoveConfig
from dove.errors import UserError
from dove.models.fsq import TAIL, TokenGrid
from dove.rounding import fit_grid
from dove.tokenizer import Dove
from dove.training.starts import start_dove


def fitted_grid(fineness: float = 0.5, samples: int = 400) -> tuple[TokenGrid, torch.Tensor]:
    """A grid for 3 tokens of 4 numbers whose scales differ by orders of magnitude, and what it was fitted to."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1e-4, 1.0, 30.0, 1.0])
    values = torch.randn(samples, 3, 4, generator=generator) * scale + torch.tensor([0.0, 5.0, -100.0, 0.0])
    grid = TokenGrid(3, 4)
    grid.fit(values, torch.tensor([1.0, 1.0, 0.1, 0.0]).expand(3, 4), fineness)
    return grid, values


@pytest.fixture
def fsq(tiny_config: DoveConfig, images: torch.Tensor) -> Dove:
    torch.manual_seed(0)
    model = Dove(replace(tiny_config, token_kind="fsq", token_fineness=0.05)).eval()
    fit_grid(model, images.repeat(20, 1, 1, 1) + 0.1 * torch.randn(60, 3, 16, 16))
    return model


def test_levels_follow_from_range_and_influence() -> None:
    grid, values = fitted_grid(fineness=0.5)
    assert (grid.levels[:, 0] == 1).all()  # moves the picture by less than a step
    assert (grid.levels[:, 3] == 1).all()  # moves nothing at all
    for column, sensitivity in ((1, 1.0), (2, 0.1)):
        low, middle, high = (float(values[:, 0, column].quantile(share)) for share in (TAIL, 0.5, 1 - TAIL))
        step = 0.5 / sensitivity
        assert float(grid.step[0, column]) == pytest.approx(step)
        down, up = round((middle - low) / step), round((high - middle) / step)
        assert int(grid.levels[0, column]) == down + up + 1
        assert float(grid.lowest[0, column]) == pytest.approx(middle - down * step, rel=1e-5)
    assert torch.equal(grid.lowest[:, 3], values[:, :, 3].quantile(0.5, dim=0))


def test_rounding_moves_a_number_inside_its_range_by_half_a_step_at_most() -> None:
    grid, values = fitted_grid()
    inside = (values > grid.lowest - grid.step / 2) & (values < grid.lowest + (grid.levels - 0.5) * grid.step)
    error = (grid(values) - values).abs() / grid.step
    many = (grid.levels > 1).expand_as(inside)
    assert inside[many].float().mean() > 0.97
    assert error[inside & many].max() <= 0.5001
    assert error[inside & many].max() > 0.45
    assert torch.equal(grid(values)[:, :, 3], grid.lowest[:, 3].expand(len(values), -1))


@given(st.integers(0, 2**31))
def test_ids_come_back(seed: int) -> None:
    grid, _ = fitted_grid(samples=20)
    share = torch.rand(5, 2, 4, generator=torch.Generator().manual_seed(seed))
    ids = (share * grid.levels[:2]).long()
    values = grid.values(ids)
    assert torch.equal(grid.ids(values), ids)
    assert torch.equal(grid(values), values)


def test_numbers_outside_get_the_outermost_levels() -> None:
    grid, _ = fitted_grid()
    assert torch.equal(grid.ids(torch.full((1, 3, 4), -1e6)), torch.zeros(1, 3, 4, dtype=torch.long))
    assert torch.equal(grid.ids(torch.full((1, 3, 4), 1e6))[0], grid.levels.long() - 1)


def test_the_gradient_goes_straight_through_inside_and_ends_outside() -> None:
    grid, _ = fitted_grid()
    middle = (grid.lowest + (grid.levels - 1) / 2 * grid.step)[None]
    outside = (grid.lowest - 2 * grid.step)[None]
    for values, expected in ((middle, (grid.levels > 1).float()), (outside, torch.zeros(3, 4))):
        values = values.clone().requires_grad_(True)
        weight = torch.arange(1.0, 13).view(1, 3, 4)
        (weight * grid(values)).sum().backward()
        assert values.grad is not None
        torch.testing.assert_close(values.grad, weight * expected)


def test_bits_are_the_logarithm_of_the_number_of_tokens_there_can_be() -> None:
    grid = TokenGrid(2, 3)
    grid.levels.copy_(torch.tensor([[1, 2, 8], [3, 1, 1]]))
    assert grid.bits.tolist() == pytest.approx([4.0, 1.5849625])


def test_encoded_tokens_are_on_the_grid_and_decode_from_their_ids(fsq: Dove, images: torch.Tensor) -> None:
    tokens = fsq.encode(images, 16)
    grid = fsq.token_grid
    ids = grid.ids(tokens.values)
    assert ids.unique().numel() > 2
    assert (ids >= 0).all()
    assert (ids < grid.levels).all()
    assert torch.equal(grid.values(ids), tokens.values)
    assert not torch.equal(tokens.values, fsq.generator.unrounded(fsq.latents(images)))
    again = fsq.decode(replace(tokens, values=grid.values(ids)))
    assert torch.equal(again, fsq.decode(tokens))


def test_the_first_tokens_don_t_depend_on_how_many_there_are(fsq: Dove, images: torch.Tensor) -> None:
    ids = fsq.token_grid.ids
    few, many = fsq.encode(images, 5), fsq.encode(images, 16)
    torch.testing.assert_close(few.values[:, :5], many.values[:, :5], atol=1e-5, rtol=0)
    assert (ids(few.values[:, :5]) == ids(many.values[:, :5])).float().mean() > 0.99  # rounding may tip one


def test_checkpoints_keep_the_grid(fsq: Dove, tmp_path: Path, images: torch.Tensor) -> None:
    fsq.save_pretrained(tmp_path)
    again = Dove.from_pretrained(tmp_path)
    assert again.config.token_kind == "fsq"
    assert again.token_grid.levels.dtype == torch.int32
    assert torch.equal(again.encode(images, 9).values, fsq.encode(images, 9).values)


@pytest.mark.parametrize(("fineness", "largest"), [(0.001, 1e-3), (0.1, 0.05)])
def test_it_starts_near_the_tokenizer_it_came_from(
    tiny_dove: Dove, images: torch.Tensor, tmp_path: Path, fineness: float, largest: float
) -> None:
    tiny_dove.save_pretrained(tmp_path)
    settings = DoveTrainConfig(
        preset="dove-tiny-paper",
        model=replace(tiny_dove.config, token_kind="fsq", token_fineness=fineness),
        start="checkpoint",
        checkpoint=str(tmp_path),
    )
    sample = images.repeat(20, 1, 1, 1) + 0.3 * torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    model = start_dove(settings, lambda: sample).eval()
    error = (model.decode(model.encode(images, 16)) - tiny_dove.decode(tiny_dove.encode(images, 16))).square().mean()
    assert 0 < error.sqrt() < largest


def test_a_grid_is_fitted_once(fsq: Dove, images: torch.Tensor, tmp_path: Path) -> None:
    fsq.save_pretrained(tmp_path)
    settings = DoveTrainConfig(
        preset="dove-tiny-paper",
        model=replace(fsq.config, token_fineness=0.4),
        start="checkpoint",
        checkpoint=str(tmp_path),
    )
    model = start_dove(settings, lambda: images)
    assert torch.equal(model.token_grid.step, fsq.token_grid.step)


def test_continuous_tokens_have_no_ids(tiny_dove: Dove) -> None:
    with pytest.raises(UserError, match="'point' are continuous"):
        _ = tiny_dove.token_grid


def test_queries_and_levels_don_t_go_together() -> None:
    with pytest.raises(UserError, match="token-kind point"):
        QDoveConfig(token_kind="fsq")
