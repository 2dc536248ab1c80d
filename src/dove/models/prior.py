"""The prior: a linear code of the whole picture, which initialises a model that has no pretrained parts.

``CosinePrior`` gives every token a band of the picture's cosine transform: some numbers are fixed, the others are an
initial value that training may replace. It rebuilds the picture from the kept tokens, and the decoder adds what they
leave out. ``NoPrior`` is the paper's layout: all numbers are learned, and the decoder makes the whole picture.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.errors import UserError
from dove.tokens import Tokens

LEAST_IMAGES = 256
"""Smallest number of images whose variances of the coefficients are reliable enough to order by."""
ADDED = 0.2
"""Standard deviations of a learned number by which an output of 1 of the generator's projection moves it."""
LEAST_ERROR = 4e-10
"""Mean squared error, pixels in [-1, 1], at which the known quality of a linear code is capped: 100 dB."""
OPPONENT = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
"""Orthonormal opponent colours of RGB: grey, red against blue, and green against both."""


def cosine_matrix(side: int) -> Float[Tensor, "side side"]:
    """Compute the orthonormal DCT-II: row f holds the cosine of frequency f (Ahmed, Natarajan and Rao, 1974)."""
    positions = torch.arange(side, dtype=torch.float64)
    rows: Tensor = torch.cos(math.pi / side * positions[:, None] * (positions[None] + 0.5)) * (2 / side) ** 0.5
    rows[0] *= 0.5**0.5
    return rows.float()


def deal(count: int, max_tokens: int, fixed: int, learned: int) -> tuple[Int[Tensor, "K P"], Int[Tensor, "K L"]]:
    """Assign ``count`` ranks to tokens: P fixed and then L learned numbers each, until none are left.

    The fixed numbers behind them repeat the learned ones' ranks in their order. ``count`` itself stands for no coefficient.
    """
    width = fixed + learned
    ranks = torch.arange(max_tokens * width).clamp(max=count).view(max_tokens, width)
    fixed_ranks, learned_ranks = ranks[:, :fixed].flatten(), ranks[:, fixed:].contiguous()
    repeated = learned_ranks[learned_ranks < count]
    free = (fixed_ranks == count).nonzero().flatten()[: len(repeated)]
    fixed_ranks[free] = repeated[: len(free)]
    return fixed_ranks.unflatten(0, (max_tokens, fixed)), learned_ranks


@dataclass(frozen=True)
class PriorCode:
    """A linear code of images, computed before any transformer runs.

    Attributes:
        fixed: numbers at the head of each token, P of them; P is 0 without a prior.
        offset: what is added to the L learned numbers behind them.
        scale: factor of the learned numbers, by token, before that is added.
        quality: PSNR in dB that the linear code reaches with the first 1 to K tokens.
    """

    fixed: Float[Tensor, "B K P"]
    offset: Float[Tensor, "B K L"]
    scale: Float[Tensor, "K 1"]
    quality: Float[Tensor, "B K"]

    def __getitem__(self, rows: Int[Tensor, " M"]) -> "PriorCode":
        """Pick images, some of them several times."""
        return PriorCode(self.fixed[rows], self.offset[rows], self.scale, self.quality[rows])


class Prior(nn.Module, ABC):
    """A linear code beside the transformers."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 S S"]) -> PriorCode:
        """Compute the linear code of images in [-1, 1]."""

    @abstractmethod
    def picture(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images in [-1, 1] from the kept tokens by the linear code alone."""

    @abstractmethod
    def complete(
        self, picture: Float[Tensor, "B 3 S S"], added: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Join the prior's picture with what the decoder adds to it."""


class NoPrior(Prior):
    """The paper's layout: tokens are learned throughout, and the decoder's output is the image.

    Args:
        side: S of the images, in pixels.
        max_tokens: capacity K.
        width: D of the tokens.
    """

    typical_quality = 20.0
    """PSNR in dB that a quality head predicts at initialisation."""

    def __init__(self, side: int, max_tokens: int, width: int):
        super().__init__()
        self.side, self.max_tokens, self.width = side, max_tokens, width

    def encode(self, images: Float[Tensor, "B 3 S S"]) -> PriorCode:
        """Return no fixed numbers, and the same quality for all images and lengths."""
        shape = images.shape[0], self.max_tokens  # not len(), which an export would fix
        offset = images.new_zeros(1, 1, 1).expand(*shape, self.width)
        scale = images.new_ones(self.max_tokens, 1)
        return PriorCode(images.new_empty(*shape, 0), offset, scale, images.new_full(shape, self.typical_quality))

    def picture(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Return a grey picture."""
        return tokens.values.new_zeros(len(tokens), 3, self.side, self.side)

    def complete(
        self, picture: Float[Tensor, "B 3 S S"], added: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Return the decoder's output."""
        return added


class CosinePrior(Prior):
    """The whole picture's cosine transform in opponent colours, ordered by variance and assigned to the tokens.

    Every token gets the next D coefficients of that order, each less its mean and divided by its standard deviation over the
    images of :meth:`fit`, so that zeros stand for the mean picture. The first P of them are fixed. The last L initialise
    the learned numbers: scaled by a gate on the way in and another on the way out, both learned and 1 at first. The
    generator adds to them, in units of ``ADDED`` standard deviations. That unit is no parameter: a learned one went to zero
    within a thousand steps, and with it the gradient of what is added. A fresh model is the cosine transform with D numbers
    a token. Once all coefficients are assigned, the fixed numbers of the remaining tokens repeat those that were only offered
    to the learned numbers: where K P covers the picture, all K tokens hold it exactly.

    The transform is orthonormal, so the squared error of a prefix is the energy of the coefficients behind it (Parseval).

    Args:
        side: S of the square images, in pixels.
        max_tokens: capacity K.
        fixed: P, at least 1.
        learned: L, at least 0.
    """

    order: Tensor
    mean: Tensor
    deviation: Tensor
    cosines: Tensor
    colours: Tensor
    fixed_ranks: Tensor
    learned_ranks: Tensor
    new_ranks: Tensor
    holder: Tensor
    scale: Tensor

    def __init__(self, side: int, max_tokens: int, fixed: int, learned: int):
        super().__init__()
        self.side, self.count, self.fixed = side, 3 * side * side, fixed
        self.register_buffer("order", torch.arange(self.count))
        self.register_buffer("mean", torch.zeros(self.count))
        self.register_buffer("deviation", torch.ones(self.count))
        self.register_buffer("cosines", cosine_matrix(side), persistent=False)
        self.register_buffer("colours", torch.tensor(OPPONENT), persistent=False)
        ranks = deal(self.count, max_tokens, fixed, learned)
        for name, part in zip(("fixed_ranks", "learned_ranks"), ranks, strict=True):
            self.register_buffer(name, part, persistent=False)
        # A repeated coefficient was in the picture already, from the token that offered it.
        new = self.fixed_ranks.masked_fill(torch.isin(self.fixed_ranks, self.learned_ranks), self.count)
        self.register_buffer("new_ranks", new, persistent=False)
        # The token that a rank is fixed in, counted from 1; one more than there are where none is.
        holder = torch.full((self.count + 1,), max_tokens + 1)
        holder[self.fixed_ranks] = torch.arange(1, max_tokens + 1)[:, None].expand_as(self.fixed_ranks)
        holder[-1] = max_tokens + 1
        self.register_buffer("holder", holder, persistent=False)
        self.gate_in = nn.Parameter(torch.ones(max_tokens, learned))
        self.gate_out = nn.Parameter(torch.ones(max_tokens, learned))
        self.register_buffer("scale", torch.full((max_tokens, 1), ADDED))

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

    def encode(self, images: Float[Tensor, "B 3 S S"]) -> PriorCode:
        """Compute the tokens' coefficients and the PSNR of every prefix of D numbers a token, at most 100 dB."""
        with torch.no_grad():
            centred = (self.transform(images) - self.mean)[:, self.order]
            standard = F.pad(centred / self.deviation[self.order], (0, 1))  # the last one stands for no coefficient
            fixed, offered = standard[:, self.fixed_ranks], standard[:, self.learned_ranks]
            energies = F.pad(centred.double().square(), (0, 1))
            each = energies[:, self.new_ranks].sum(-1) + energies[:, self.learned_ranks].sum(-1)
            errors = (energies.sum(1, keepdim=True) - each.cumsum(1)) / self.count
            quality = 10 * torch.log10(4 / errors.clamp(min=LEAST_ERROR))
        return PriorCode(fixed, offered * self.gate_in, self.scale, quality.float())

    def picture(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from the kept tokens; coefficients that they don't hold have their means."""
        k = tokens.values.shape[1]
        values = tokens.values.float().masked_fill(~tokens.mask[..., None], 0)
        fixed, learned = values[..., : self.fixed], values[..., self.fixed :] * self.gate_out[:k]
        ordered = values.new_zeros(len(values), self.count + 1)
        ordered = ordered.index_add(1, self.learned_ranks[:k].flatten(), learned.flatten(1))
        ordered = ordered.masked_fill(self.held(tokens.lengths), 0)
        ordered = ordered.index_add(1, self.fixed_ranks[:k].flatten(), fixed.flatten(1))
        return self.inverse(self._unordered(ordered[:, :-1]) * self.deviation + self.mean)

    def complete(
        self, picture: Float[Tensor, "B 3 S S"], added: Float[Tensor, "B 3 S S"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Add to the linear picture what the decoder gives of the coefficients that are not fixed in the kept tokens.

        The decoder's output counts in units of the standard deviation that those coefficients have together, per pixel
        value, and only its part in their span is added: the projection never raises the squared error, and with nothing
        left open the image is exact.
        """
        unknown = self._unordered(~self.held(lengths)[:, :-1])
        scale = (self.deviation.square() * unknown).mean(1).sqrt()
        return picture + self.inverse(self.transform(added) * scale[:, None] * unknown)

    def held(self, lengths: Int[Tensor, " B"]) -> Bool[Tensor, "B _"]:
        """Mark the ranks that are fixed in the first ``lengths`` tokens; the last column stands for no coefficient."""
        return self.holder <= lengths[:, None]

    def _unordered(self, ordered: Tensor) -> Tensor:
        """Bring ranks, (B, F), back to the coefficients' own places."""
        return torch.empty_like(ordered).index_copy(1, self.order, ordered)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Switch autocasting off on the device of a tensor; tensors without data, on ``meta``, have none to switch off."""
    kind = tensor.device.type
    return torch.autocast("cpu" if kind == "meta" else kind, enabled=False)


def make_prior(config: DoveConfig) -> Prior:
    """Make the prior that ``config.prior`` names."""
    side = config.vqgan.image_size
    if config.prior == "cosines":
        return CosinePrior(side, config.max_tokens, config.prior_numbers, config.learned_numbers)
    return NoPrior(side, config.max_tokens, config.token_dim)
