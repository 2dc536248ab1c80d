"""Sensitivity of the picture to a change of a token."""

import torch
from jaxtyping import Float
from torch import Tensor

from dove.tokenizer import Dove
from dove.tokens import Tokens

PROBES = 4  # Number of random directions in image space that estimate a decoder's sensitivity, for every batch


def token_sensitivity(
    model: Dove, values: Float[Tensor, "M K D"], generator: torch.Generator, batch_size: int = 16
) -> Float[Tensor, "K D"]:
    """Estimate how far the picture moves, in root summed squared pixels ([-1, 1]), when a number of a token moves by one.

    The square is the mean over directions v of (d v.x / d token)^2 for v of independent signs, averaged over images.
    """
    total, count = torch.zeros_like(values[0]), 0
    for batch in torch.split(values, batch_size):
        part = batch.clone().requires_grad_(True)
        with torch.enable_grad():
            lengths = torch.full((len(part),), part.shape[1], device=part.device)
            picture = model.reconstruct_from(Tokens(part, lengths))
            for _ in range(PROBES):
                signs = torch.randint(0, 2, picture.shape, generator=generator).to(picture) * 2 - 1
                (gradient,) = torch.autograd.grad((signs * picture).sum(), part, retain_graph=True)
                total += gradient.square().sum(0)
                count += len(part)
    return (total / count).sqrt()
