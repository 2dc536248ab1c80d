"""Interface of length policies, and the images that they may look at."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dove.errors import UserError
from dove.models.eos import EosScores
from dove.tokens import require_whole


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Images at hand with a function that rebuilds them; for policies that choose by measured quality.

    Attributes:
        images: encoded images, (B, 3, H, W) in [-1, 1].
        reconstruct: function from lengths (B,) to the images rebuilt from that many tokens; one decoder forward.
    """

    images: Float[Tensor, "B 3 H W"]
    reconstruct: Callable[[Int[Tensor, " B"]], Float[Tensor, "B 3 H W"]]


WHOLE = r"[+-]?\d{1,18}"  # Written form of whole numbers; more digits are no number of tokens


class LengthPolicy(ABC):
    """Choice of the number of tokens, from 1 to K, of every image in a batch. ``str(policy)`` parses back to it."""

    syntax: ClassVar[str]
    """Written form, shown in the message about a request that is not understood."""
    collective: ClassVar[bool] = False
    """True where an image's length depends on the other images of the call."""

    @classmethod
    @abstractmethod
    def parse(cls, text: str, max_tokens: int) -> "LengthPolicy | None":
        """Parse a request; return None where ``text`` is not written in the form of this class.

        Args:
            text: Request in lower case, without surrounding spaces.
            max_tokens: Capacity K of the model.

        Raises:
            UserError: If it is written in that form with a value out of range.
        """

    @abstractmethod
    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        """Choose the numbers of tokens to keep, (B,), EOS excluded.

        Args:
            eos: scores of the first ``positions(K)`` positions.
            trial: images and their reconstructions, for policies that look at them.
        """

    def settled(self, eos: EosScores) -> Bool[Tensor, " B"]:
        """Tell which images' lengths no score of a later position can change.

        Args:
            eos: Scores of the first ``least_positions`` positions or more.
        """
        return torch.ones(len(eos.margin), dtype=torch.bool, device=eos.margin.device)

    def positions(self, max_tokens: int) -> int:
        """Count the positions, of K, that this policy may need to choose."""
        return max_tokens

    def least_positions(self, max_tokens: int) -> int:
        """Count the positions, of K, that this policy needs whatever their scores are."""
        return self.positions(max_tokens)


def positional(number: float, *, sign: bool = False) -> str:
    """Write a number exactly and without an exponent, as policies are parsed."""
    return np.format_float_positional(number, trim="-", sign=sign)


def require_number(value: float, what: str) -> None:
    """Raise ``UserError`` for anything but a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UserError(f"{what} is {value!r}; pass a finite number")


def in_range(num_tokens: int, max_tokens: int) -> int:
    """Return ``num_tokens`` if it is a whole number from 1 to K.

    Raises:
        UserError: If it is not.
    """
    require_whole(num_tokens, max_tokens)
    if not 1 <= num_tokens <= max_tokens:
        problem = f"exceeds max_tokens={max_tokens}" if num_tokens > max_tokens else "is too few"
        raise UserError(f"num_tokens={num_tokens} {problem}; pass 1 to {max_tokens}")
    return num_tokens
