"""The two ways to predict the end of a sequence."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DoveConfig


@dataclass(frozen=True)
class EosScores:
    """What a head says about ending the sequence at each position.

    Attributes:
        probability: p_eos(i) of Eq. 3, in [0, 1].
        margin: EOS logit minus the best competing logit; EOS is the head's own choice where it is positive.
    """

    probability: Float[Tensor, "B K"]
    margin: Float[Tensor, "B K"]


class BinaryEosHead(nn.Module):
    """One logit per position: EOS against going on."""

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Linear(width, 1)
        # Training starts from whole sequences: at even odds nearly every image would end at its first positions.
        nn.init.constant_(self.projection.bias, -3.0)

    def forward(self, hidden: Float[Tensor, "B K H"]) -> EosScores:
        logit = self.projection(hidden)[..., 0].float()
        return EosScores(probability=logit.sigmoid(), margin=logit)


class VocabularyEosHead(nn.Module):
    """The language model's own output layer, of which one word is EOS."""

    def __init__(self, width: int, vocab_size: int, eos_token_id: int):
        super().__init__()
        self.eos_token_id = eos_token_id
        self.projection = nn.Linear(width, vocab_size, bias=False)

    def forward(self, hidden: Float[Tensor, "B K H"]) -> EosScores:
        logits = self.projection(hidden).float()
        eos = logits[..., self.eos_token_id]
        others = torch.cat([logits[..., : self.eos_token_id], logits[..., self.eos_token_id + 1 :]], dim=-1)
        return EosScores(probability=(eos - logits.logsumexp(-1)).exp(), margin=eos - others.amax(-1))


EosHead = BinaryEosHead | VocabularyEosHead


def make_eos_head(config: DoveConfig) -> EosHead:
    """The head that ``config.eos_head`` names."""
    if config.eos_head == "vocab":
        return VocabularyEosHead(config.generator.hidden_size, config.vocab_size, config.eos_token_id)
    return BinaryEosHead(config.generator.hidden_size)
