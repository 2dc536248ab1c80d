"""An orthonormal change of basis that sorts a grid of latents by importance.

Position i of a token sequence and grid cell i have nothing in common: the first token of a prefix should carry what
matters for the whole picture. This module takes the grid's two-dimensional cosine transform, channel by channel, sorts
the N x C coefficients by their variance over a data set and deals them out in that order: band 1 holds the C strongest
coefficients of the image, band N the weakest. The first k bands are then close to the best linear summary of the
latents in k * C numbers.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def cosine_basis(side: int) -> Float[Tensor, "N N"]:
    """Orthonormal DCT-II matrix of a ``side x side`` grid; rows are frequencies, columns row-major grid cells."""
    cells = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(math.pi / side * (cells[None, :] + 0.5) * cells[:, None]) * math.sqrt(2.0 / side)
    rows[0] /= math.sqrt(2.0)
    return torch.kron(rows, rows).float()


class LatentBands(nn.Module):
    """Latents to bands and back; exact inverses of each other.

    Until :meth:`fit` has seen data the order is that of the unsorted transform, with zero mean and unit scale.
    """

    basis: Tensor
    order: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, grid_size: int, channels: int):
        super().__init__()
        positions = grid_size**2
        self.register_buffer("basis", cosine_basis(grid_size), persistent=False)
        self.register_buffer("order", torch.arange(positions * channels, dtype=torch.int32))
        self.register_buffer("mean", torch.zeros(positions, channels))
        self.register_buffer("scale", torch.ones(positions, 1))

    def split(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Bands of the latents, strongest first, centred and scaled to unit variance band by band."""
        coefficients = torch.einsum("fn,bnc->bfc", self.basis.float(), latents.float()).flatten(1)
        return ((coefficients[:, self.order].view(latents.shape) - self.mean) / self.scale).to(latents.dtype)

    def merge(self, bands: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Latents whose bands these are."""
        coefficients = (bands.float() * self.scale + self.mean).flatten(1)
        unsorted = coefficients[:, torch.argsort(self.order)].view(bands.shape)
        return torch.einsum("fn,bfc->bnc", self.basis.float(), unsorted).to(bands.dtype)

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "B N C"]) -> None:
        """Take order, mean and scale from the latents of a sample of images (a few thousand suffice).

        Raises:
            ValueError: if there are fewer than two samples.
        """
        if len(latents) < 2:
            raise ValueError(f"got {len(latents)} sample; the variances need at least two images")
        coefficients = torch.einsum("fn,bnc->bfc", self.basis.float(), latents.float()).flatten(1)
        variance, mean = torch.var_mean(coefficients, dim=0)
        order = torch.argsort(variance, descending=True, stable=True)
        shape = self.mean.shape
        self.order.copy_(order)
        self.mean.copy_(mean[order].view(shape))
        self.scale.copy_(variance[order].view(shape).mean(1, keepdim=True).sqrt().clamp(min=1e-4))
