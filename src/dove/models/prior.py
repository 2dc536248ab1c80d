"""The prior: a linear code of the whole picture, which initialises a model that has no pretrained parts.

``CosinePrior`` fills the tokens with the picture's cosine transform, but for some numbers of the first token, which are
learned. It rebuilds the picture from the kept tokens, and the decoder adds what they leave out. ``NoPrior`` is the
paper's layout: all numbers are learned, and the decoder makes the whole picture.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.errors import UserError
from dove.metrics import decibels
from dove.tokens import Tokens

LEAST_IMAGES = 256
"""Smallest number of images whose variances of the coefficients are reliable enough to order by."""
OPPONENT = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
"""Orthonormal opponent colours of RGB: grey, red against blue, and green against both."""


def cosine_matrix(side: int) -> Float[Tensor, "side side"]:
    """Compute the orthonormal DCT-II: row f holds the cosine of frequency f (Ahmed, Natarajan and Rao, 1974)."""
    positions = torch.arange(side, dtype=torch.float64)
    rows: Tensor = torch.cos(math.pi / side * positions[:, None] * (positions[None] + 0.5)) * (2 / side) ** 0.5
    rows[0] *= 0.5**0.5
    return rows.float()


def deal(count: int, max_tokens: int, fixed: int, learned: int) -> Int[Tensor, "K D"]:
    """Assign ``count`` ranks to tokens of D = ``fixed`` + ``learned`` numbers, in their order, until none are left.

    The first token gets ``fixed`` of them, and every other one D. ``count`` itself stands for no coefficient.
    """
    width = fixed + learned
    ranks = torch.arange(-learned, max_tokens * width - learned).view(max_tokens, width)
    ranks[0] = torch.cat([torch.arange(fixed), torch.full((learned,), count)])
    return ranks.clamp(max=count)


@dataclass(frozen=True)
class PriorCode:
    """A linear code of images, computed before any transformer runs.

    Attributes:
        fixed: numbers that no training moves, and 0 where a number is learned.
        learned: 1 for tokens whose last numbers the generator computes, 0 for the others.
        quality: PSNR in dB that the linear code reaches with the first 1 to K tokens.
    """

    fixed: Float[Tensor, "B K D"]
    learned: Float[Tensor, "K 1"]
    quality: Float[Tensor, "B K"]

    def __getitem__(self, rows: Int[Tensor, " M"]) -> "PriorCode":
        """Pick images, some of them several times."""
        return PriorCode(self.fixed[rows], self.learned, self.quality[rows])


class NoPrior(nn.Module):
    """The paper's layout: K tokens of D numbers are learned throughout, and the decoder's output is the image of S pixels."""

    typical_quality = 20.0
    """PSNR in dB that a quality head predicts at initialisation."""

    def __init__(self, side: int, max_tokens: int, width: int):
        super().__init__()
        self.side, self.max_tokens, self.width = side, max_tokens, width

    def encode(self, images: Float[Tensor, "B 3 S S"]) -> PriorCode:
        """Return no fixed numbers, and the same quality for all images and lengths."""
        shape = images.shape[0], self.max_tokens  # not len(), which an export would fix
        fixed = images.new_zeros(1, 1, 1).expand(*shape, self.width)
        return PriorCode(fixed, images.new_ones(self.max_tokens, 1), images.new_full(shape, self.typical_quality))

    def picture(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Return a grey picture."""
        return tokens.values.new_zeros(len(tokens), 3, self.side, self.side)

    def complete(
        self, picture: Float[Tensor, "B 3 S S"], added: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Return the decoder's output."""
        return added


class CosinePrior(nn.Module):
    """The whole picture's cosine transform in opponent colours, ordered by variance and assigned to the tokens.

    The first token gets the first P coefficients of that order, and every other token the next D = P + L. Each is less its
    mean and divided by its standard deviation over the images of :meth:`fit`, so that zeros stand for the mean picture.
    The last L numbers of the first token are learned; no coefficient stands there. (Where learned numbers were added to
    coefficients, the squared error drove them to zero: the coefficient was always worth more.) Where all tokens together
    have room for all coefficients, they hold the picture exactly.

    The transform is orthonormal, so the squared error of a prefix is the energy of the coefficients behind it (Parseval).

    Args:
        side: S of the square images, in pixels.
        max_tokens: capacity K.
        fixed: P, at least 1.
        learned: L.
    """

    def __init__(self, side: int, max_tokens: int, fixed: int, learned: int):
        super().__init__()
        self.side, self.count = side, 3 * side * side
        self.order = nn.Buffer(torch.arange(self.count))
        self.mean = nn.Buffer(torch.zeros(self.count))
        self.deviation = nn.Buffer(torch.ones(self.count))
        self.cosines = nn.Buffer(cosine_matrix(side), persistent=False)
        self.colours = nn.Buffer(torch.tensor(OPPONENT), persistent=False)
        self.ranks = nn.Buffer(deal(self.count, max_tokens, fixed, learned), persistent=False)
        # The token that holds a rank, counted from 1; one more than there are where none does.
        holder = torch.full((self.count + 1,), max_tokens + 1)
        holder[self.ranks] = torch.arange(1, max_tokens + 1)[:, None].expand_as(self.ranks)
        self.holder = nn.Buffer(holder[:-1].clone(), persistent=False)  # the last stands for no coefficient
        self.learned = nn.Buffer((torch.arange(max_tokens) == 0).float()[:, None], persistent=False)

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "M 3 S S"]) -> None:
        """Take the order, means and standard deviations of the coefficients from a sample of images in [-1, 1].

        Raises:
            UserError: for fewer than ``LEAST_IMAGES`` images.
        """
        if len(images) < LEAST_IMAGES:
            raise UserError(
                f"{len(images)} images are too few to fit a cosine prior to; pass at least {LEAST_IMAGES}, take a "
                "trained one with --start checkpoint --checkpoint dove-tiny, or train without: "
                "--model.prior none --model.prior-numbers 0"
            )
        coefficients = torch.cat([self.transform(part) for part in torch.split(images, 1024)])
        variance, mean = torch.var_mean(coefficients, dim=0)
        self.order.copy_(variance.argsort(descending=True, stable=True))
        self.mean.copy_(mean)
        self.deviation.copy_(variance.sqrt().clamp(min=1e-4))

    def transform(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B F"]:
        """Compute all F = 3 S^2 cosine coefficients of images, colour by colour and row by row."""
        with full_precision(images):
            opponent = torch.einsum("oc,bchw->bohw", self.colours, images.float())
            return (self.cosines @ opponent @ self.cosines.T).flatten(1)

    def inverse(self, coefficients: Float[Tensor, "B F"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from all coefficients; the inverse of :meth:`transform`."""
        with full_precision(coefficients):
            planes = torch.unflatten(coefficients.float(), 1, (3, self.side, self.side))
            return torch.einsum("oc,bohw->bchw", self.colours, self.cosines.T @ planes @ self.cosines)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 S S"]) -> PriorCode:
        """Compute the tokens' coefficients and the PSNR of every prefix, at most 100 dB."""
        self._check_precision()
        centred = (self.transform(images) - self.mean)[:, self.order]
        standard = F.pad(centred / self.deviation[self.order], (0, 1))  # the last one stands for no coefficient
        energies = F.pad(centred.double().square(), (0, 1))
        errors = (energies.sum(1, keepdim=True) - energies[:, self.ranks].sum(-1).cumsum(1)) / self.count
        return PriorCode(standard[:, self.ranks], self.learned, decibels(errors / 4).float())  # of pixels in [-1, 1]

    def picture(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from the kept tokens; coefficients that they don't hold have their means."""
        self._check_precision()
        values = tokens.values.float().masked_fill(~tokens.mask[..., None], 0)
        ordered = values.new_zeros(len(values), self.count + 1)
        ordered = ordered.index_add(1, self.ranks[: values.shape[1]].flatten(), values.flatten(1))
        return self.inverse(self._unordered(ordered[:, :-1]) * self.deviation + self.mean)

    def complete(
        self, picture: Float[Tensor, "B 3 S S"], added: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Add to the linear picture what the decoder gives of the coefficients that the kept tokens do not hold.

        The decoder's output counts in units of the standard deviation that those coefficients have together, per pixel
        value, and only its part in their span is added: the projection never raises the squared error, and with nothing
        left open the image is exact.
        """
        unknown = self._unordered(~self.held(lengths))
        scale = (self.deviation.square() * unknown).mean(1).sqrt()
        return picture + self.inverse(self.transform(added) * scale[:, None] * unknown)

    def held(self, lengths: Int[Tensor, " B"]) -> Bool[Tensor, "B F"]:
        """Mark the ranks that the first ``lengths`` tokens hold."""
        return self.holder <= lengths[:, None]

    def _check_precision(self) -> None:
        if self.mean.dtype != torch.float32:
            raise UserError(
                f"the cosine prior was cast to {self.mean.dtype}, too coarse for its statistics; keep the model in fp32 and "
                "pass it through dove.optimize, which casts the other parts to bf16"
            )

    def _unordered(self, ordered: Tensor) -> Tensor:
        """Bring ranks, (B, F), back to the coefficients' own places."""
        return torch.empty_like(ordered).index_copy(1, self.order, ordered)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Switch autocasting off on the device of a tensor; tensors without data, on ``meta``, have none to switch off."""
    kind = tensor.device.type
    return torch.autocast("cpu" if kind == "meta" else kind, enabled=False)


Prior = NoPrior | CosinePrior
"""A linear code beside the transformers."""


def make_prior(config: DoveConfig) -> Prior:
    """Make the prior that ``config.prior`` names."""
    side = config.vqgan.image_size
    if config.prior == "cosines":
        return CosinePrior(side, config.max_tokens, config.prior_numbers, config.learned_numbers)
    return NoPrior(side, config.max_tokens, config.token_dim)
