"""Length policy with a mean number of tokens over a batch, spent where they help most."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dove.errors import UserError
from dove.lengths.policy import LengthPolicy, Trial, positional, require_number
from dove.lengths.quality import NUMBER, not_predicted
from dove.models.eos import EosScores


@dataclass(frozen=True)
class Budget(LengthPolicy):
    """Mean of ``mean`` tokens over the images of one call, with the least predicted total squared error.

    All tokens that the mean allows are spent. One image alone gets ``mean`` tokens, rounded down: the more images share a
    budget, the more there is to gain. ``mean`` is from 1 to K, not necessarily whole.
    """

    mean: float
    syntax: ClassVar[str] = "budget NUMBER"
    collective: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self.mean, "the mean of budget")

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Budget | None":
        match = re.fullmatch(rf"budget +(?P<sign>[+-]?){NUMBER}", text)
        if not match:
            return None
        policy = cls(float(match["sign"] + match[2]))
        policy.positions(max_tokens)
        return policy

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        """See `LengthPolicy.lengths`.

        Raises:
            UserError: If the model does not predict the PSNR.
        """
        if eos.quality is None:
            raise not_predicted(self, "PSNR", eos)
        errors = 10 ** (-eos.quality.double() / 10)  # mean squared error for a peak of 1
        # Rounding must not take a token from a mean such as 4.3 over 10 images.
        total = int(self.mean * len(errors) + 1e-6)
        return spend(errors, total).to(eos.quality.device)

    def positions(self, max_tokens: int) -> int:
        if not 1 <= self.mean <= max_tokens:
            raise UserError(f"num_tokens={str(self)!r} is out of range; pass budget 1 to budget {max_tokens}")
        return max_tokens

    def __str__(self) -> str:
        return f"budget {positional(self.mean)}"


def spend(errors: Float[Tensor, "B K"], total: int) -> Int[Tensor, " B"]:
    """Choose lengths from 1 to K that sum to ``total`` and make the sum of errors small, by marginal gains.

    Every image starts at one token; each further token goes where it takes most off the error (Fox, "Discrete
    optimization via marginal analysis", 1966). That is the exact optimum where errors are convex in the length. Other
    curves are replaced by their greatest convex minorant, so that a flat stretch does not hide the gain behind it: the
    result is exact whenever no stretch is cut, and at most one is unless stretches of several images gain exactly the same.

    Args:
        errors: (B, K), at [b, k] that of image b from its first k + 1 tokens; any finite numbers.
        total: number of tokens, from B to B * K.
    """
    curves = errors.detach().double().cpu().numpy()
    gains = np.array([isotonic_gains(curve[:-1] - curve[1:]) for curve in curves])
    # Token by token, then image by image: equal gains go to the images with the fewest tokens first. The stable sort
    # keeps an image's own tokens in their order, as its gains never rise.
    order = np.argsort(-gains.T, axis=None, kind="stable")[: total - len(curves)]
    return torch.from_numpy(1 + np.bincount(order % len(curves), minlength=len(curves)))


def isotonic_gains(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the slopes of the greatest convex minorant of an error curve with these gains per token.

    They are the non-increasing least-squares fit to the gains, found by pooling adjacent violators.
    """
    means: list[float] = []
    counts: list[int] = []
    for gain in gains.tolist():
        means.append(gain)
        counts.append(1)
        while len(means) > 1 and means[-2] <= means[-1]:
            mean, count = means.pop(), counts.pop()
            means[-1] = (means[-1] * counts[-1] + mean * count) / (counts[-1] + count)
            counts[-1] += count
    return np.repeat(np.array(means), np.array(counts, dtype=np.int64))
