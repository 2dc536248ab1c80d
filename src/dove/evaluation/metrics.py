"""Quality of reconstructions: pixel errors per image, and the Frechet distance between sets of images."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor
from torch.nn import functional as F

from dove.errors import UserError

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def mean_squared_error(
    reconstruction: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Compute the mean squared error of each image, (B,); pixels in [0, 1] give values in [0, 1]."""
    return (reconstruction.double() - images.double()).square().mean(dim=(1, 2, 3))


def ssim(reconstruction: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Compute the structural similarity of each image, from -1 to 1, for pixels in [0, 1] (data range 1).

    The definition is that of torchmetrics: an 11 x 11 Gaussian window of standard deviation 1.5, images continued by
    reflection, averaged over all pixels and channels.

    Raises:
        UserError: If the images have sides below 6 pixels, too few for the reflection.
    """
    height, width = images.shape[-2:]
    if min(height, width) <= SSIM_RADIUS:
        raise UserError(f"images of {width}x{height} px are too small for SSIM, which needs {SSIM_RADIUS + 1} px")
    rows, columns = _window_matrix(height).to(images), _window_matrix(width).to(images).T

    def blur(maps: Tensor) -> Tensor:
        return rows @ maps @ columns

    mean_x, mean_y = blur(images), blur(reconstruction)
    variance_x = (blur(images * images) - mean_x * mean_x).clamp(min=0)
    variance_y = (blur(reconstruction * reconstruction) - mean_y * mean_y).clamp(min=0)
    covariance = blur(images * reconstruction) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _window_matrix(size: int) -> Float[Tensor, "size size"]:
    """Build the Gaussian window with reflection as a matrix: at these sizes products are ten times faster than convolutions."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    padded = F.pad(torch.eye(size, dtype=torch.float64)[None], (SSIM_RADIUS, SSIM_RADIUS), mode="reflect")[0]
    # Column p of ``padded`` says which pixel stands at padded position p.
    return (padded.unfold(1, len(window), 1) @ (window / window.sum())).T


def correlate(measure: Any, values: NDArray[np.float64], others: NDArray[np.float64]) -> float | None:
    """Correlate two variables by a measure of scipy; None where one of them is constant."""
    if len(values) < 2 or np.ptp(values) == 0 or np.ptp(others) == 0:
        return None
    return float(measure(values, others).statistic)


class FeatureStatistics:
    """Mean and covariance of feature vectors, accumulated by batches in float64 without keeping the vectors."""

    def __init__(self, width: int):
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(width)
        self._scatter: NDArray[np.float64] = np.zeros((width, width))
        self._root: NDArray[np.float64] | None = None

    def update(self, features: Float[Tensor, "B F"]) -> None:
        """Add a batch of feature vectors."""
        batch = features.double().cpu().numpy()
        if not np.isfinite(batch).all():
            raise UserError("some features of the images are not finite; check the network's weights and the model")
        mean, shift = batch.mean(axis=0), batch.mean(axis=0) - self.mean
        total = self.count + len(batch)
        # Sums of squares around the running mean: sums around zero would cancel where the mean is large.
        rows = np.vstack([batch - mean, shift * np.sqrt(self.count * len(batch) / total)])
        self._scatter += rows.T @ rows
        self._root = None
        self.mean = self.mean + shift * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Sample covariance (divided by n - 1), (F, F)."""
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 images, not {self.count}")
        return self._scatter / (self.count - 1)

    @property
    def covariance_root(self) -> NDArray[np.float64]:
        """Symmetric square root of the covariance, (F, F), computed once for all distances to these images."""
        if self._root is None:
            self._root = _symmetric_root(self.covariance)
        return self._root


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Compute the squared Frechet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2). That needs square roots of symmetric
    matrices alone, which exist for singular covariances too, where a general matrix square root may fail.
    """
    shift = first.mean - second.mean
    cross = linalg.svdvals(first.covariance_root @ second.covariance_root).sum()
    return float(shift @ shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross)


def _symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
