"""One image at several lengths for the price of one encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dove.lengths import LengthPolicy, Trial
from dove.metrics import psnr
from dove.models.eos import EosScores
from dove.tokenizer import Dove
from dove.tokens import Tokens


@dataclass(frozen=True)
class Reconstructions:
    """An image rebuilt from P numbers of tokens."""

    lengths: list[int]
    psnr: list[float]
    """In dB, against the image at the model's size; see :func:`dove.metrics.psnr`."""
    images: Float[Tensor, "P 3 S S"]
    """In [-1, 1]."""


@torch.no_grad()
def encode_each(model: Dove, images: Float[Tensor, "B 3 S S"], policies: Sequence[LengthPolicy]) -> list[Tokens]:
    """What ``model.encode`` gives for each of the policies, from one forward of the encoder and the token generator.

    That is possible because the first k tokens of a forward never depend on how many follow.
    """
    capacity = model.config.max_tokens
    latents = model.latents(images)
    output = model.generate(latents, max(policy.positions(capacity) for policy in policies))

    def cut(lengths: Tensor) -> Tokens:
        return Tokens.cut(output.values, lengths, capacity)

    trial = Trial(images=images, reconstruct=lambda lengths: model.decode(cut(lengths)))
    scores = ((output.eos, policy.positions(capacity), policy) for policy in policies)
    return [
        cut(policy.lengths(EosScores(eos.probability[:, :seen], eos.margin[:, :seen]), trial))
        for eos, seen, policy in scores
    ]


def reconstruct(model: Dove, image: Float[Tensor, "3 S S"], policies: Sequence[LengthPolicy]) -> Reconstructions:
    """Rebuild one image, in [-1, 1], at the length that each policy gives it."""
    images = image[None].to(model.token_decoder.positions.device)
    tokens = Tokens.cat(encode_each(model, images, policies))
    rebuilt = model.decode(tokens)
    return Reconstructions(tokens.lengths.tolist(), psnr(rebuilt, images.expand_as(rebuilt)).tolist(), rebuilt)
