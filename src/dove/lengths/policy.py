"""What every length policy is, and what it may look at."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dove.errors import UserError
from dove.models.eos import EosScores


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The images at hand and what they would look like; for policies that choose by quality.

    Attributes:
        images: what was encoded, in [-1, 1].
        reconstruct: lengths (B,) in, the images rebuilt from that many tokens out. Costs a decoder forward.
    """

    images: Float[Tensor, "B 3 H W"]
    reconstruct: Callable[[Int[Tensor, " B"]], Float[Tensor, "B 3 H W"]]


class LengthPolicy(ABC):
    """Chooses the number of tokens, from 1 to K, of every image in a batch. ``str(policy)`` parses back to it."""

    syntax: ClassVar[str]
    """How a user writes it; shown where something else was written."""
    collective: ClassVar[bool] = False
    """Whether an image's length depends on the other images of the call."""

    @classmethod
    @abstractmethod
    def parse(cls, text: str, max_tokens: int) -> "LengthPolicy | None":
        """The policy that ``text`` means, None where it is not one of this class.

        Raises:
            UserError: for one of this class with a value out of range.
        """

    @abstractmethod
    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        """Tokens to keep, EOS excluded.

        Args:
            eos: scores of the first ``positions(K)`` positions.
            trial: needed only by policies that look at reconstructions.
        """

    def settled(self, eos: EosScores) -> Bool[Tensor, " B"]:
        """Whose length no score of a later position can change, given those of the first ``least_positions`` or more."""
        return torch.ones(len(eos.margin), dtype=torch.bool, device=eos.margin.device)

    def positions(self, max_tokens: int) -> int:
        """How many of the K positions have to be generated for this policy to choose."""
        return max_tokens

    def least_positions(self, max_tokens: int) -> int:
        """How many of them it needs whatever their scores say."""
        return self.positions(max_tokens)


@dataclass(frozen=True)
class JointPolicies:
    """Several policies that choose from the scores of one generation.

    Attributes:
        policies: one or more.
        max_tokens: capacity K.
    """

    policies: tuple[LengthPolicy, ...]
    max_tokens: int

    @property
    def positions(self) -> int:
        """Number of positions that one of them may need."""
        return max(policy.positions(self.max_tokens) for policy in self.policies)

    @property
    def least_positions(self) -> int:
        """Number of positions that one of them needs whatever their scores say."""
        return max(policy.least_positions(self.max_tokens) for policy in self.policies)

    def settled(self, eos: EosScores) -> Bool[Tensor, " B"]:
        """Tell which images need no further position for any of them."""
        return torch.stack([policy.settled(eos) for policy in self.policies]).all(0)


def in_range(num_tokens: int, max_tokens: int) -> int:
    """``num_tokens``, if it is from 1 to K.

    Raises:
        UserError: if it is not.
    """
    if not 1 <= num_tokens <= max_tokens:
        problem = f"exceeds max_tokens={max_tokens}" if num_tokens > max_tokens else "is too few"
        raise UserError(f"num_tokens={num_tokens} {problem}; pass 1 to {max_tokens}")
    return num_tokens
