"""How many tokens each image gets: one ``LengthPolicy`` type for everything a user can ask for.

A further policy is a further subclass with a ``parse`` of its own, entered in ``POLICIES``. Callers need no change:
they hand over what any policy may look at, the EOS scores and a ``Trial`` to rebuild the images from chosen lengths.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
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

    def positions(self, max_tokens: int) -> int:
        """How many of the K positions have to be generated for this policy to choose."""
        return max_tokens


@dataclass(frozen=True)
class Fixed(LengthPolicy):
    """The same number of tokens for every image."""

    num_tokens: int
    syntax: ClassVar[str] = "a number from 1 to {max_tokens}"

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Fixed | None":
        if not re.fullmatch(r"[+-]?\d+", text):
            return None
        return cls(_in_range(int(text), max_tokens))

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        return torch.full((len(eos.margin),), self.num_tokens, device=eos.margin.device)

    def positions(self, max_tokens: int) -> int:
        return _in_range(self.num_tokens, max_tokens)

    def __str__(self) -> str:
        return str(self.num_tokens)


@dataclass(frozen=True, kw_only=True)
class Auto(LengthPolicy):
    """Every image up to its own EOS, which comes at about equal quality.

    EOS is taken at the first position i >= 2 where it outscores its competitors by more than ``-eos_bias``; the i - 1
    tokens in front of it are kept. Without any EOS all K are.

    Attributes:
        eos_bias: added to the EOS margin, in logits: above 0 for fewer tokens, below 0 for more.
        max_tokens: upper limit; None for K.
    """

    eos_bias: float = 0.0
    max_tokens: int | None = None
    syntax: ClassVar[str] = "auto, auto+BIAS, auto-BIAS, max NUMBER"

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Auto | None":
        match = re.fullmatch(
            r"auto(?P<bias>[+-]\d*\.?\d+)?(?: +max +(?P<limit>[+-]?\d+))?|max +(?P<max>[+-]?\d+)", text
        )
        if not match:
            return None
        limit = match["limit"] or match["max"]
        return cls(
            eos_bias=float(match["bias"] or 0),
            max_tokens=_in_range(int(limit), max_tokens) if limit else None,
        )

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        ends = eos.margin + self.eos_bias > 0
        ends[:, 0] = False
        # argmax finds the first True; its 0-based index is the number of positions in front of it.
        lengths = torch.where(ends.any(1), ends.int().argmax(1), eos.margin.shape[1])
        return lengths if self.max_tokens is None else lengths.clamp(max=self.max_tokens)

    def positions(self, max_tokens: int) -> int:
        return max_tokens if self.max_tokens is None else _in_range(self.max_tokens, max_tokens)

    def __str__(self) -> str:
        bias = f"{self.eos_bias:+g}" if self.eos_bias else ""
        return f"auto{bias}" + (f" max {self.max_tokens}" if self.max_tokens else "")


POLICIES: tuple[type[LengthPolicy], ...] = (Fixed, Auto)


def parse_length_policy(request: int | str | LengthPolicy, max_tokens: int) -> LengthPolicy:
    """The policy a user asks for.

    Args:
        request: a number, one of the written forms of the classes in ``POLICIES``, or a policy.
        max_tokens: capacity K of the model.

    Raises:
        UserError: for what is no policy, or a number of tokens that is not from 1 to K.
    """
    if isinstance(request, LengthPolicy):
        request.positions(max_tokens)  # raises where the policy asks for more than K
        return request
    text = str(request).strip().lower()
    for policy in POLICIES:
        if parsed := policy.parse(text, max_tokens):
            return parsed
    forms = "; ".join(policy.syntax.format(max_tokens=max_tokens) for policy in POLICIES)
    raise UserError(f"num_tokens={str(request)!r} is not understood; pass {forms}")


def _in_range(num_tokens: int, max_tokens: int) -> int:
    if not 1 <= num_tokens <= max_tokens:
        problem = f"exceeds max_tokens={max_tokens}" if num_tokens > max_tokens else "is too few"
        raise UserError(f"num_tokens={num_tokens} {problem}; pass 1 to {max_tokens}")
    return num_tokens
