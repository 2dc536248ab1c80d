"""An orthonormal change of basis that sorts a grid of latents by importance.

Position i of a token sequence and grid cell i have nothing in common: the first token of a prefix should carry what
matters for the whole picture. This module takes the grid's two-dimensional cosine transform, channel by channel, sorts
the N x C coefficients by their variance over a data set and deals them out in that order: band 1 holds the C strongest
coefficients of the image, band N the weakest. The first k bands are then close to the best linear summary of the
latents in k * C numbers.

Where a latent itself holds the cosine coefficients of its cell of pixels, :class:`PictureBands` goes on to those of the
whole picture: a smooth slope across many cells is then a few coefficients, not a few in every channel.
"""

import math
from functools import cache
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.errors import UserError

CHROMA_ENERGY = 0.1
"""How much less chroma than luma is expected to hold where the frequencies of a cell are chosen."""


def cosines(length: int) -> Float[Tensor, "length length"]:
    """Orthonormal one-dimensional DCT-II matrix in float64; rows are frequencies."""
    samples = torch.arange(length, dtype=torch.float64)
    rows = torch.cos(math.pi / length * (samples[None, :] + 0.5) * samples[:, None]) * math.sqrt(2.0 / length)
    rows[0] /= math.sqrt(2.0)
    return rows


def cosine_basis(side: int) -> Float[Tensor, "N N"]:
    """Orthonormal DCT-II matrix of a ``side x side`` grid; rows are frequencies, columns row-major grid cells."""
    rows = cosines(side)
    return torch.kron(rows, rows).float()


@cache
def cell_frequencies(cell: int, channels: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """How many vertical and horizontal frequencies of a cell of pixels a latent holds, for luma and the two chromas.

    Those that hold most of a photo, whose spectrum falls with the square of the frequency.

    Args:
        cell: side of the cell in pixels.
        channels: width of the latent, at least 3.
    """
    energy = (1 + torch.arange(cell)[:, None] ** 2 + torch.arange(cell)[None, :] ** 2).double().reciprocal()
    held = {
        (rows, columns): float(energy[:rows, :columns].sum()) for rows, columns in product(range(1, cell + 1), repeat=2)
    }
    best, chosen = 0.0, ((1, 1), (1, 1))
    for luma, chroma in product(held, repeat=2):
        if math.prod(luma) + 2 * math.prod(chroma) <= channels:
            total = held[luma] + 2 * CHROMA_ENERGY * held[chroma]
            if total > best:
                best, chosen = total, (luma, chroma)
    return chosen[0], chosen[1], chosen[1]


def joined_cosines(grid_size: int, cell: int, kept: int) -> Float[Tensor, "L L"]:
    """From the first ``kept`` frequencies of each of a line's cells to frequencies of the line, L = grid_size * kept.

    Orthonormal: the line's lowest cosines as far as the kept frequencies can form them, and exactly those where all are kept.
    """
    cells = torch.kron(torch.eye(grid_size, dtype=torch.float64), cosines(cell)[:kept])  # (L, pixels)
    left, _, right = torch.linalg.svd(cosines(grid_size * cell)[: grid_size * kept] @ cells.T)
    return (left @ right).float()


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

    def coefficients(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B M"]:
        """All M = N x C coefficients in the transform's own order."""
        return torch.einsum("fn,bnc->bfc", self.basis.float(), latents.float()).flatten(1)

    def latents(self, coefficients: Float[Tensor, "B M"]) -> Float[Tensor, "B N C"]:
        """The inverse of :meth:`coefficients`."""
        return torch.einsum("fn,bfc->bnc", self.basis.float(), coefficients.view(-1, *self.mean.shape))

    def split(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Bands of the latents, strongest first, centred and scaled to unit variance band by band."""
        coefficients = self.coefficients(latents)
        return ((coefficients[:, self.order].view(latents.shape) - self.mean) / self.scale).to(latents.dtype)

    def merge(self, bands: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Latents whose bands these are."""
        coefficients = (bands.float() * self.scale + self.mean).flatten(1)
        return self.latents(coefficients[:, torch.argsort(self.order)]).to(bands.dtype)

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "B N C"]) -> None:
        """Take order, mean and scale from the latents of a sample of images (a few thousand suffice).

        Raises:
            ValueError: if there are fewer than two samples.
        """
        if len(latents) < 2:
            raise ValueError(f"got {len(latents)} sample; the variances need at least two images")
        variance, mean = torch.var_mean(self.coefficients(latents), dim=0)
        order = torch.argsort(variance, descending=True, stable=True)
        shape = self.mean.shape
        self.order.copy_(order)
        self.mean.copy_(mean[order].view(shape))
        self.scale.copy_(variance[order].view(shape).mean(1, keepdim=True).sqrt().clamp(min=1e-4))


class PictureBands(LatentBands):
    """Bands of the whole picture's cosine transform, for latents that are cosine coefficients of their cells.

    The channels are luma and two chromas one after the other, each with :func:`cell_frequencies` vertical times horizontal
    frequencies; what channels are left over stay as they are.

    Args:
        grid_size: cells a side.
        channels: width of a latent.
        cell: pixels a side of a cell.
    """

    def __init__(self, grid_size: int, channels: int, cell: int):
        super().__init__(grid_size, channels)
        self.side = grid_size
        self.frequencies = cell_frequencies(cell, channels)
        for kept in {side for pair in self.frequencies for side in pair}:
            self.register_buffer(f"line_{kept}", joined_cosines(grid_size, cell, kept), persistent=False)

    def coefficients(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B M"]:
        grid = latents.float().unflatten(1, (self.side, self.side))
        found, start = [], 0
        for rows, columns in self.frequencies:
            part = grid[..., start : start + rows * columns].unflatten(3, (rows, columns))
            lines = part.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
            found.append((self.line(rows) @ lines @ self.line(columns).T).flatten(1))
            start += rows * columns
        return torch.cat([*found, grid[..., start:].flatten(1)], dim=1)

    def latents(self, coefficients: Float[Tensor, "B M"]) -> Float[Tensor, "B N C"]:
        found, start = [], 0
        for rows, columns in self.frequencies:
            shape = self.side * rows, self.side * columns
            lines = coefficients[:, start : start + math.prod(shape)].unflatten(1, shape)
            lines = self.line(rows).T @ lines @ self.line(columns)
            part = lines.unflatten(2, (self.side, columns)).unflatten(1, (self.side, rows))
            found.append(part.permute(0, 1, 3, 2, 4).flatten(3))
            start += math.prod(shape)
        rest = coefficients[:, start:].unflatten(1, (self.side, self.side, -1))
        return torch.cat([*found, rest], dim=3).flatten(1, 2)

    def line(self, kept: int) -> Float[Tensor, "L L"]:
        """The transform of a line of cells with so many frequencies each."""
        return self.get_buffer(f"line_{kept}").float()


def make_bands(config: DoveConfig) -> LatentBands:
    """The bands that ``token_basis`` names.

    Raises:
        UserError: if latents are too narrow for luma and two chromas.
    """
    vqgan = config.vqgan
    if config.token_basis == "cosines":
        if vqgan.channels < 3:
            raise UserError(
                f"token_basis=cosines needs 3 latent channels or more, for luma and two chromas; got {vqgan.channels}"
            )
        return PictureBands(vqgan.grid_size, vqgan.channels, vqgan.image_size // vqgan.grid_size)
    return LatentBands(vqgan.grid_size, vqgan.channels)
