"""Length policies that aim at a quality, which the EOS head predicts in one forward or a search measures by decoding."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dove.errors import UserError
from dove.lengths.policy import LengthPolicy, Trial, positional, require_number
from dove.metrics import psnr
from dove.models.eos import EosScores

NUMBER = r"(\d+\.?\d*|\.\d+)"


@dataclass(frozen=True)
class AtQuality(LengthPolicy):
    """Policy that is written as a fixed text, such as ``psnr>=``, and a number above 0."""

    value: float
    prefix: ClassVar[str]

    def __post_init__(self) -> None:
        require_number(self.value, f"the quality of {self.prefix}")
        if not self.value > 0:
            raise UserError(f"num_tokens={str(self)!r}: the quality must be above 0")

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "AtQuality | None":
        prefix = re.sub("([<>]=)", r" *\1 *", cls.prefix.replace(" ", " +"))
        match = re.fullmatch(prefix + NUMBER, text)
        return cls(float(match[1])) if match else None

    def __str__(self) -> str:
        return f"{self.prefix}{positional(self.value)}"


class PredictedQuality(AtQuality):
    """Fewest tokens whose predicted quality is good enough; K where none is. Nothing is decoded."""

    @abstractmethod
    def reached(self, eos: EosScores) -> Bool[Tensor, "B K"]:
        """Tell where the quality is good enough.

        Raises:
            UserError: If the model does not predict it.
        """

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        reached = self.reached(eos)
        # argmax finds the first True
        return torch.where(reached.any(1), reached.int().argmax(1) + 1, reached.shape[1])

    def settled(self, eos: EosScores) -> Bool[Tensor, " B"]:
        return self.reached(eos).any(1)

    def least_positions(self, max_tokens: int) -> int:
        return 1


class PsnrAtLeast(PredictedQuality):
    """Fewest tokens that are predicted to reach a PSNR of ``value`` dB; K where none do. Nothing is decoded."""

    prefix = "psnr>="
    syntax = "psnr>=DECIBELS"

    def reached(self, eos: EosScores) -> Bool[Tensor, "B K"]:
        if eos.quality is None:
            raise not_predicted(self, "PSNR", eos)
        return eos.quality >= self.value


class PerceptualAtMost(PredictedQuality):
    """Fewest tokens that are predicted to come within a perceptual distance of ``value``; K where none do.

    Nothing is decoded. The distance is that of the network that the model's head was trained on,
    ``DoveConfig.quality_perceptual``; it is LPIPS only where that setting says so.
    """

    prefix = "lpips<="
    syntax = "lpips<=DISTANCE"

    def reached(self, eos: EosScores) -> Bool[Tensor, "B K"]:
        if eos.perceptual is None:
            raise not_predicted(self, "perceptual distances", eos)
        return eos.perceptual <= self.value


class SearchPsnr(AtQuality):
    """Fewest tokens that reach a PSNR of ``value`` dB, found by decoding: a bisection of 1 to K for every image at once.

    Takes ceil(log2 K) decoder forwards and works with any model. Finds the fewest where the PSNR grows with the number
    of tokens, elsewhere a number that reaches it while one token less misses it. K where K tokens miss it.
    """

    prefix = "search psnr>="
    syntax = "search psnr>=DECIBELS"

    def lengths(self, eos: EosScores, trial: Trial | None = None) -> Int[Tensor, " B"]:
        """See `LengthPolicy.lengths`.

        Raises:
            UserError: If there is no ``trial``.
        """
        if trial is None:
            raise UserError(f"num_tokens={str(self)!r} decodes to choose, which this model does not offer here")
        low = torch.ones(len(eos.margin), dtype=torch.long, device=eos.margin.device)
        high = torch.full_like(low, eos.margin.shape[1])
        while (low < high).any():
            middle = (low + high) // 2
            reached = psnr(trial.reconstruct(middle), trial.images) >= self.value
            low, high = torch.where(reached, low, torch.minimum(middle + 1, high)), torch.where(reached, middle, high)
        return high


def not_predicted(policy: LengthPolicy, what: str, eos: EosScores) -> UserError:
    """Make the error for a policy that needs a prediction which the model's head does not make."""
    known = ["a number", "auto", "max NUMBER", SearchPsnr.syntax]
    known += [PsnrAtLeast.syntax, "budget NUMBER"] if eos.quality is not None else []
    known += [PerceptualAtMost.syntax] if eos.perceptual is not None else []
    return UserError(
        f"num_tokens={str(policy)!r} needs a model that predicts {what}, which this one does not; "
        f"it knows {', '.join(known)}"
    )
