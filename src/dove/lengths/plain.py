"""Length policies without a quality: one number for all images, or each image's own EOS."""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dove.lengths.policy import WHOLE, LengthPolicy, Trial, in_range, positional, require_number
from dove.models.eos import EosScores


@dataclass(frozen=True)
class Fixed(LengthPolicy):
    """Equal number of tokens for every image."""

    num_tokens: int
    syntax: ClassVar[str] = "a number from 1 to {max_tokens}"

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Fixed | None":
        if not re.fullmatch(WHOLE, text):
            return None
        return cls(in_range(int(text), max_tokens))

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        return torch.full((len(eos.margin),), self.num_tokens, device=eos.margin.device)

    def positions(self, max_tokens: int) -> int:
        return in_range(self.num_tokens, max_tokens)

    def __str__(self) -> str:
        return str(self.num_tokens)


@dataclass(frozen=True, kw_only=True)
class Auto(LengthPolicy):
    """Length up to each image's own EOS, which comes at about equal quality.

    EOS is taken at the first position i >= 2 where it outscores its competitors by more than ``-eos_bias``; the i - 1
    tokens in front of it are kept. Without any EOS all K are.

    Attributes:
        eos_bias: added to the EOS margin, in logits: above 0 for fewer tokens, below 0 for more.
        max_tokens: upper limit; None for K.
    """

    eos_bias: float = 0.0
    max_tokens: int | None = None
    syntax: ClassVar[str] = "auto, auto+BIAS, auto-BIAS, max NUMBER"

    def __post_init__(self) -> None:
        require_number(self.eos_bias, "eos_bias of auto")

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Auto | None":
        match = re.fullmatch(rf"auto(?P<bias>[+-]\d*\.?\d+)?(?: +max +(?P<limit>{WHOLE}))?|max +(?P<max>{WHOLE})", text)
        if not match:
            return None
        limit = match["limit"] or match["max"]
        return cls(eos_bias=float(match["bias"] or 0), max_tokens=in_range(int(limit), max_tokens) if limit else None)

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        ends = self._ends(eos)
        # argmax finds the first True; its 0-based index is the number of positions in front of it.
        lengths = torch.where(ends.any(1), ends.int().argmax(1), eos.margin.shape[1])
        return lengths if self.max_tokens is None else lengths.clamp(max=self.max_tokens)

    def settled(self, eos: EosScores) -> Bool[Tensor, " B"]:
        enough = self.max_tokens is not None and eos.margin.shape[1] >= self.max_tokens
        return self._ends(eos).any(1) | enough

    def _ends(self, eos: EosScores) -> Bool[Tensor, "B K"]:
        ends = eos.margin + self.eos_bias > 0
        ends[:, 0] = False
        return ends

    def positions(self, max_tokens: int) -> int:
        return max_tokens if self.max_tokens is None else in_range(self.max_tokens, max_tokens)

    def least_positions(self, max_tokens: int) -> int:
        return 1

    def __str__(self) -> str:
        bias = positional(self.eos_bias, sign=True) if self.eos_bias else ""
        return f"auto{bias}" + (f" max {self.max_tokens}" if self.max_tokens else "")
