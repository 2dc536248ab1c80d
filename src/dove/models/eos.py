"""Heads that predict the end of a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig


@dataclass(frozen=True)
class EosScores:
    """Scores for ending the sequence at each position.

    Attributes:
        probability: p_eos(i) of Eq. 3, in [0, 1].
        margin: EOS logit minus the best competing logit; EOS is the head's own choice where it is positive.
        quality: predicted PSNR in dB of the first i tokens; None from heads that predict none.
        perceptual: predicted perceptual distance, above 0, of the first i tokens; None from heads that predict none.
    """

    probability: Float[Tensor, "B K"]
    margin: Float[Tensor, "B K"]
    quality: Float[Tensor, "B K"] | None = None
    perceptual: Float[Tensor, "B K"] | None = None

    @classmethod
    def cat(cls, parts: Sequence["EosScores"]) -> "EosScores":
        """Join the scores of positions that follow each other."""
        columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return cls(**{name: torch.cat(scores, dim=1) for name, scores in columns.items() if scores[0] is not None})

    def __getitem__(self, positions: slice) -> "EosScores":
        """Return the scores of a range of positions."""
        return EosScores(**{name: scores[:, positions] for name, scores in vars(self).items() if scores is not None})


def scores_from_quality(
    quality: Float[Tensor, "B K"], target: float, perceptual: Float[Tensor, "B K"] | None = None
) -> EosScores:
    """Convert qualities to EOS scores whose margin is in dB.

    A sequence ends where its quality is nearest to the target: position i is its end if the target lies below the middle
    between the qualities of i - 1 and of i tokens. The first number of tokens that reaches the target would be above it by
    half of what a token gains, which differs from image to image.

    Args:
        quality: PSNR in dB of the first 1 to K tokens.
        target: PSNR in dB at which a sequence ends.
        perceptual: perceptual distance of as many, where it is known.
    """
    middle = (quality[:, :-1] + quality[:, 1:]) / 2
    # Nothing is in front of position 1.
    margin = torch.cat([torch.full_like(quality[:, :1], -torch.inf), middle - target], dim=1)
    return EosScores(probability=margin.sigmoid(), margin=margin, quality=quality, perceptual=perceptual)


class BinaryEosHead(nn.Module):
    """One logit per position: EOS against continuation."""

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Linear(width, 1)
        # Training starts from whole sequences: at even odds nearly every image would end at its first positions.
        nn.init.constant_(self.projection.bias, -3.0)

    def forward(self, hidden: Float[Tensor, "B k H"], known_quality: Float[Tensor, "B k"]) -> EosScores:
        """Score the positions; ``known_quality`` is unused."""
        logit = self.projection(hidden)[..., 0].float()
        return EosScores(probability=logit.sigmoid(), margin=logit)


class VocabularyEosHead(nn.Module):
    """The language model's own output layer; one word of its vocabulary is EOS."""

    positions_at_once: int | None = None
    """Positions scored at a time; None takes all. Few keep the scores of all words in a processor's cache, but in training
    each portion costs a pass over the gradient of the weights."""

    def __init__(self, width: int, vocab_size: int, eos_token_id: int):
        super().__init__()
        self.eos_token_id = eos_token_id
        self.projection = nn.Linear(width, vocab_size, bias=False)

    def forward(self, hidden: Float[Tensor, "B k H"], known_quality: Float[Tensor, "B k"]) -> EosScores:
        """Score the positions; ``known_quality`` is unused."""
        rows = hidden.flatten(0, 1)
        scored = [self._score(portion) for portion in rows.split(self.positions_at_once or len(rows))]
        probability, margin = (torch.cat(parts).view(hidden.shape[:2]) for parts in zip(*scored, strict=True))
        return EosScores(probability=probability, margin=margin)

    def _score(self, rows: Float[Tensor, "R H"]) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Compute probability and margin of EOS."""
        others = self.projection(rows).float()
        eos = others[:, self.eos_token_id].clone()
        others[:, self.eos_token_id] = -torch.inf
        return (eos - others.logsumexp(-1)).sigmoid(), eos - others.amax(-1)


class QualityEosHead(nn.Module):
    """Prediction, at position i, of the PSNR that the first i tokens reach; EOS comes where it is nearest to a target.

    The layers correct the PSNR that a prior is known to reach with as many tokens. The margin is in dB, so that an
    ``eos_bias`` of 2 asks for 2 dB less.

    Args:
        target: PSNR in dB at which a sequence ends.
        outputs: 1 for the PSNR alone, 2 for the perceptual distance beside it.
    """

    scale, centre = 10.0, 20.0  # Unit and origin of the layers, in dB: bels around 20 dB keep weights of order one
    distance_centre = -1.0  # Decimal logarithm of the distance that the second output stands for at 0

    def __init__(self, width: int, target: float, outputs: int = 1):
        super().__init__()
        self.target = target
        self.hidden = nn.Linear(width + 1, width)
        self.projection = nn.Linear(width, outputs)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, hidden: Float[Tensor, "B k H"], known_quality: Float[Tensor, "B k"]) -> EosScores:
        """Predict qualities from the hidden states and the prior's PSNR, in dB."""
        known = ((known_quality - self.centre) / self.scale)[..., None].to(hidden.dtype)
        outputs = self.projection(F.gelu(self.hidden(torch.cat([hidden, known], dim=-1)))).float()
        quality = outputs[..., 0] * self.scale + known_quality
        perceptual = 10 ** (outputs[..., 1] + self.distance_centre) if outputs.shape[-1] > 1 else None
        return scores_from_quality(quality, self.target, perceptual)


EosHead = BinaryEosHead | VocabularyEosHead | QualityEosHead


def make_eos_head(config: DoveConfig) -> EosHead:
    """Make the EOS head that ``config.eos_head`` names."""
    if config.eos_head == "vocab":
        return VocabularyEosHead(config.generator.hidden_size, config.vocab_size, config.eos_token_id)
    if config.eos_head == "quality":
        outputs = 1 if config.quality_perceptual == "none" else 2
        return QualityEosHead(config.generator.hidden_size, config.quality_target, outputs)
    return BinaryEosHead(config.generator.hidden_size)
