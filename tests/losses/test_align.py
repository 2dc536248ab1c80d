import math

import pytest
import torch

from dove.losses.align import grid_alignment, pooled_alignment, resize_map


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(6))


def test_scaled_features_are_at_distance_0_and_opposite_ones_at_2(features):
    predicted = resize_map(features, (4, 4))
    for factor, expected in ((3.0, 0.0), (-0.5, 2.0)):
        torch.testing.assert_close(grid_alignment(factor * predicted, features, (4, 4)), torch.full((3,), expected))
    pooled = features.mean((2, 3))
    torch.testing.assert_close(pooled_alignment(-pooled, pooled), torch.full((3,), 2.0))


def test_the_mean_over_positions_is_of_angles():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 2).permute(1, 2, 0).reshape(1, 2, 1, 2)
    angles = torch.tensor([[math.cos(1.0), math.sin(1.0)], [0.0, 7.0]])[None]
    found = grid_alignment(angles, features, (1, 2))
    torch.testing.assert_close(found, torch.tensor([(1 - math.cos(1.0)) / 2]))


def test_positions_run_row_by_row(features):
    predicted = torch.stack([features[:, :, row, column] for row in range(4) for column in range(4)], dim=1)
    assert grid_alignment(predicted, features, (4, 4)).abs().max() < 1e-5
    assert grid_alignment(predicted.flip(1), features, (4, 4)).min() > 0.1


def test_a_coarser_grid_averages_and_a_finer_one_interpolates():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert resize_map(ramp, (2, 2))[0, :, 0].tolist() == pytest.approx([1.9, 5.1, 1.9, 5.1], abs=0.3)
    fine = resize_map(ramp, (8, 16))[0, :16, 0]
    torch.testing.assert_close(fine[1:-1].diff(), torch.full((13,), 0.5))


def test_samples_do_not_see_each_other_and_targets_get_no_gradient(features):
    predicted = torch.randn(3, 64, 8, generator=torch.Generator().manual_seed(7), requires_grad=True)
    features.requires_grad_()
    grid_alignment(predicted, features, (8, 8))[1].backward()
    assert predicted.grad[1].abs().sum(-1).min() > 0
    assert predicted.grad[[0, 2]].count_nonzero() == 0
    assert features.grad is None


def test_zero_predictions_have_finite_gradients(features):
    predicted = torch.zeros(3, 16, 8, requires_grad=True)
    found = grid_alignment(predicted, features, (4, 4))
    found.sum().backward()
    assert found.tolist() == [1, 1, 1]
    assert predicted.grad.isfinite().all()
