import warnings

import numpy as np
import pytest
import torch
from scipy import linalg
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from dove.errors import UserError
from dove.evaluation.metrics import FeatureStatistics, frechet_distance, mean_squared_error, ssim
from dove.metrics import decibels


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Four 24 x 20 images in [0, 1] and noisy copies, the noise growing from image to image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 24, 20, generator=generator)
    noise = torch.randn(images.shape, generator=generator) * torch.tensor([0.01, 0.05, 0.2, 0.5]).view(4, 1, 1, 1)
    return (images + noise).clamp(0, 1), images


def statistics_of(features: np.ndarray, batch: int = 7) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(torch.from_numpy(features[start : start + batch]))
    return statistics


def test_psnr_is_that_of_torchmetrics(pair):
    expected = peak_signal_noise_ratio(*pair, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(decibels(mean_squared_error(*pair)).float(), expected, atol=1e-4, rtol=0)


def test_equal_images_have_a_finite_psnr(pair):
    assert decibels(mean_squared_error(pair[1], pair[1])).tolist() == [100.0] * 4


def test_ssim_is_that_of_torchmetrics(pair):
    expected = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(*pair), expected, atol=1e-5, rtol=0)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(UserError, match="too small for SSIM"):
        ssim(torch.zeros(1, 3, 5, 9), torch.zeros(1, 3, 5, 9))


def test_streamed_statistics_are_those_of_the_whole_matrix():
    features = np.random.default_rng(0).normal(1000, 1, (53, 6))  # a mean far from zero, where naive sums lose digits
    statistics = statistics_of(features)
    np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-9)
    assert statistics.count == 53


def test_frechet_distance_is_the_direct_scipy_computation_and_that_of_pytorch_fid():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(300, 16)) @ rng.normal(size=(16, 16)), rng.normal(0.3, 1.2, (200, 16))
    means, covariances = [f.mean(0) for f in (first, second)], [np.cov(f, rowvar=False) for f in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    direct = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    measured = frechet_distance(statistics_of(first), statistics_of(second))
    assert measured == pytest.approx(direct, abs=1e-6)

    from pytorch_fid.fid_score import calculate_frechet_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls sqrtm with an argument that SciPy deprecates
        theirs = calculate_frechet_distance(means[0], covariances[0], means[1], covariances[1])
    assert measured == pytest.approx(theirs, abs=1e-3)


def test_frechet_distance_of_a_set_to_itself_is_zero_also_with_singular_covariances():
    features = np.random.default_rng(2).normal(size=(10, 32))
    assert frechet_distance(statistics_of(features), statistics_of(features)) == pytest.approx(0, abs=1e-6)


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="at least 2 images"):
        _ = statistics_of(np.ones((1, 3))).covariance


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        statistics_of(np.full((2, 3), np.nan))
