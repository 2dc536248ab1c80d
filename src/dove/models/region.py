"""Tokens that describe a rectangle of the grid first.

The bands of a whole picture say nothing about one object in it before they say everything. This module takes the cosine
transform of a rectangle of cells alone, and deals its coefficients out in bands by their expected variance, so that a few
of them describe that rectangle as a few bands of the whole describe the whole. A sequence for a rectangle of n cells is

    the first g bands of the whole | n bands of the rectangle | the other bands of the whole, as far as there is room

where the rectangle's bands hold what the first g of the whole leave of it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dove.models.bands import LatentBands
from dove.models.locator import cell_masks


def span_bases(side: int) -> Float[Tensor, "E E u s"]:
    """For every span of cells [start, end) its orthonormal DCT-II, at [start, end]: rows are frequencies, of which the
    first end - start are there, columns the ``side`` cells."""
    bases = torch.zeros(side + 1, side + 1, side, side, dtype=torch.float64)
    for start in range(side):
        for end in range(start + 1, side + 1):
            size = end - start
            cells = torch.arange(size, dtype=torch.float64)
            rows = torch.cos(torch.pi / size * (cells[None, :] + 0.5) * cells[:, None]) * (2.0 / size) ** 0.5
            rows[0] /= 2**0.5
            bases[start, end, :size, start:end] = rows
    return bases


def lag_weights(side: int) -> Float[Tensor, "E u lag"]:
    """What each lag of an autocorrelation adds to the variance of each frequency of a span of 0 to ``side`` cells."""
    bases = span_bases(side)[0]  # (E, u, s): spans that start at 0
    lags = [(bases[..., : side - lag] * bases[..., lag:]).sum(-1) * (1 if lag == 0 else 2) for lag in range(side)]
    return torch.stack(lags, -1)


class RegionBands(nn.Module):
    """Latents inside rectangles to bands and back; exact inverses of each other, whatever the rectangles' sizes.

    The order of coefficients follows from the autocorrelation of the latents' channels, which :meth:`fit` takes from data;
    until then cells count as independent and equally strong.
    """

    autocorrelation: Tensor
    bases: Tensor
    order: Tensor
    scale: Tensor

    def __init__(self, grid_size: int, channels: int):
        super().__init__()
        self.side, self.channels = grid_size, channels
        unfitted = torch.zeros(grid_size, grid_size, channels)
        unfitted[0, 0] = 1
        self.register_buffer("autocorrelation", unfitted)
        self.register_buffer("bases", span_bases(grid_size).float(), persistent=False)
        shapes = grid_size + 1, grid_size + 1
        order = torch.zeros(*shapes, grid_size**2 * channels, dtype=torch.long)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("scale", torch.ones(*shapes, grid_size**2), persistent=False)
        self._sort()
        self.register_load_state_dict_post_hook(lambda module, _: module._sort())

    def split(self, latents: Float[Tensor, "B N C"], rectangles: Int[Tensor, "B 4"]) -> Float[Tensor, "B N C"]:
        """Bands of what the rectangles hold, strongest first, at about unit variance; zero beyond their n cells."""
        rows, columns = self._bases(rectangles)
        grid = latents.float().unflatten(1, (self.side, self.side))
        coefficients = torch.einsum("bup,bvq,bpqc->buvc", rows, columns, grid).flatten(1)
        order, scale = self._shape(rectangles)
        return (coefficients.gather(1, order).view(latents.shape) / scale).to(latents.dtype)

    def merge(self, bands: Float[Tensor, "B N C"], rectangles: Int[Tensor, "B 4"]) -> Float[Tensor, "B N C"]:
        """Latents whose bands these are, zero outside of the rectangles."""
        rows, columns = self._bases(rectangles)
        order, scale = self._shape(rectangles)
        sorted_ = (bands.float() * scale).flatten(1)
        coefficients = torch.zeros_like(sorted_).scatter(1, order, sorted_)
        coefficients = coefficients.view(-1, self.side, self.side, self.channels)
        return torch.einsum("bup,bvq,buvc->bpqc", rows, columns, coefficients).flatten(1, 2).to(bands.dtype)

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "B N C"]) -> None:
        """Take the autocorrelation from latents of a sample of images (what the rectangles' bands shall hold)."""
        grid = latents.double().unflatten(1, (self.side, self.side))
        side = self.side
        for down in range(side):
            for across in range(side):
                here, there = grid[:, : side - down, : side - across], grid[:, down:, across:]
                mirrored = grid[:, : side - down, across:] * grid[:, down:, : side - across]
                self.autocorrelation[down, across] = ((here * there + mirrored) / 2).mean((0, 1, 2)).float()
        self._sort()

    def _bases(self, rectangles: Int[Tensor, "B 4"]) -> tuple[Float[Tensor, "B u s"], Float[Tensor, "B v s"]]:
        upper, left, lower, right = rectangles.unbind(1)
        return self.bases[upper, lower], self.bases[left, right]

    def _shape(self, rectangles: Int[Tensor, "B 4"]) -> tuple[Int[Tensor, "B NC"], Float[Tensor, "B N 1"]]:
        upper, left, lower, right = rectangles.unbind(1)
        shape = lower - upper, right - left
        return self.order[shape], self.scale[shape][..., None]

    @torch.no_grad()
    def _sort(self) -> None:
        """Order and scale for every shape of rectangle."""
        side = self.side
        weights = lag_weights(side)
        correlation = self.autocorrelation.double().cpu()
        variance = torch.einsum("hud,wve,dec->hwuvc", weights, weights, correlation).clamp(min=1e-8)
        there = torch.arange(side) < torch.arange(side + 1)[:, None]  # (E, u): frequencies that a span has
        valid = there[:, None, :, None] & there[None, :, None, :]  # (E, E, u, v)
        variance = variance.masked_fill(~valid[..., None], -1.0).flatten(2)
        strongest, order = variance.sort(dim=2, descending=True, stable=True)
        scale = strongest.view(*order.shape[:2], side**2, self.channels).mean(3)
        self.order.copy_(order)
        self.scale.copy_(torch.where(scale > 0, scale, 1.0).sqrt())


class RegionLayout(nn.Module):
    """Bands of the whole and of a rectangle in one sequence of N positions, and back."""

    def __init__(self, grid_size: int, channels: int, context: int):
        super().__init__()
        self.context, self.side = context, grid_size
        self.bands = RegionBands(grid_size, channels)

    def split(
        self, latents: Float[Tensor, "B N C"], whole: LatentBands, rectangles: Int[Tensor, "B 4"]
    ) -> Float[Tensor, "B N C"]:
        """The sequence for each image's rectangle; for an empty one the bands of the whole."""
        bands = whole.split(latents)
        rest = latents - whole.merge(self.first(bands))
        source, _ = self._places(rectangles)
        both = torch.cat([bands, self.bands.split(rest, rectangles)], dim=1)
        return both.gather(1, source[..., None].expand_as(bands))

    def merge(
        self, sequence: Float[Tensor, "B N C"], whole: LatentBands, rectangles: Int[Tensor, "B 4"]
    ) -> Float[Tensor, "B N C"]:
        """Latents of such a sequence; of a whole one, exact inside the rectangle."""
        _, target = self._places(rectangles)
        count = sequence.shape[1]
        padded = torch.cat([sequence, torch.zeros_like(sequence[:, :1])], dim=1)
        both = padded.gather(1, target[..., None].expand(-1, -1, sequence.shape[2]))
        bands, inside = both[:, :count], both[:, count:]
        detailed = whole.merge(self.first(bands)) + self.bands.merge(inside, rectangles)
        return torch.where(self.cells(rectangles)[..., None], detailed, whole.merge(bands))

    def cells(self, rectangles: Int[Tensor, "B 4"]) -> Bool[Tensor, "B N"]:
        """True inside."""
        return cell_masks(rectangles, self.side)

    def first(self, bands: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """The bands with all behind the context set to zero."""
        first = torch.arange(bands.shape[1], device=bands.device) < self.context
        return bands * first[:, None]

    def _places(self, rectangles: Int[Tensor, "B 4"]) -> tuple[Int[Tensor, "B N"], Int[Tensor, "B M"]]:
        """Where each position comes from, in (N of the whole, N of the rectangle), and where each of these goes; N for
        what has no position."""
        count, context = self.side**2, self.context
        sizes = self.cells(rectangles).sum(1, keepdim=True)  # (B, 1)
        place = torch.arange(count, device=rectangles.device)[None]
        in_region = (place >= context) & (place < context + sizes)
        later = torch.where(place >= context + sizes, place - sizes, place)
        source = torch.where(in_region, count + place - context, later)
        of_whole = torch.where(place >= context, place + sizes, place).clamp(max=count)
        of_region = torch.where(place < sizes, place + context, count).clamp(max=count)
        return source, torch.cat([of_whole, of_region], dim=1)


class RegionMark(nn.Module):
    """Writes a rectangle into the first token, along directions that this token of a whole picture hardly uses, and reads it.

    Each of the four sides of a rectangle is one of ``side`` directions of length ``strength``. Before :meth:`fit` these are the
    token's last dimensions.
    """

    mean: Tensor
    directions: Tensor
    strength: Tensor

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width)[:, width - 4 * side :].clone())
        self.register_buffer("strength", torch.tensor(4.0))

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` has seen data."""
        return bool(self.mean.any())

    def write(self, tokens: Float[Tensor, "B K D"], rectangles: Int[Tensor, "B 4"]) -> Float[Tensor, "B K D"]:
        """Tokens of which the first bears the rectangle; those of an empty one stay as they are."""
        first = tokens[:, 0]
        used = (first - self.mean) @ self.directions  # (B, 4 * side)
        marked = (
            first + (self.strength * rectangle_code(rectangles, self.side).to(first.dtype) - used) @ self.directions.T
        )
        first = torch.where(_filled(rectangles)[:, None], marked.to(first.dtype), first)
        return torch.cat([first[:, None], tokens[:, 1:]], dim=1)

    def read(self, tokens: Float[Tensor, "B K D"]) -> Int[Tensor, "B 4"]:
        """The rectangles that tokens bear; the empty one where there is none."""
        code = ((tokens[:, 0].float() - self.mean) @ self.directions / self.strength).unflatten(1, (4, self.side))
        found, side = code.max(2)
        offsets = torch.tensor([0, 0, 1, 1], device=tokens.device)
        rectangles = side + offsets
        return rectangles * ((found > 0.5).all(1) & _filled(rectangles))[:, None]

    def erase(self, tokens: Float[Tensor, "B K D"], rectangles: Int[Tensor, "B 4"]) -> Float[Tensor, "B K D"]:
        """Tokens without the mark of the rectangle."""
        mark = (self.strength * rectangle_code(rectangles, self.side).to(tokens.dtype)) @ self.directions.T
        first = torch.where(_filled(rectangles)[:, None], (tokens[:, 0] - mark).to(tokens.dtype), tokens[:, 0])
        return torch.cat([first[:, None], tokens[:, 1:]], dim=1)

    @torch.no_grad()
    def fit(self, tokens: Float[Tensor, "M D"]) -> None:
        """Choose the directions in which the first tokens of M whole pictures differ least."""
        self.mean.copy_(tokens.mean(0))
        centred = (tokens - self.mean).double()
        variances, vectors = torch.linalg.eigh(centred.T @ centred / len(tokens))
        self.directions.copy_(vectors[:, : 4 * self.side])
        # A whole picture's own share along a direction stays under half of this by many standard deviations.
        self.strength.copy_(
            torch.maximum(12 * variances[4 * self.side - 1].clamp(min=0).sqrt(), variances.mean().sqrt())
        )


def rectangle_code(rectangles: Int[Tensor, "B 4"], side: int) -> Float[Tensor, "B X"]:
    """Four one-hot codes of ``side`` values each, for upper, left, lower and right; zeros for an empty rectangle."""
    offsets = torch.tensor([0, 0, 1, 1], device=rectangles.device)
    code = nn.functional.one_hot((rectangles - offsets).clamp(min=0), side).flatten(1)
    return (code * _filled(rectangles)[:, None]).float()


def _filled(rectangles: Int[Tensor, "B 4"]) -> Bool[Tensor, " B"]:
    return (rectangles[:, 2] > rectangles[:, 0]) & (rectangles[:, 3] > rectangles[:, 1])
