"""What rounding a token costs in the picture, and levels chosen by that."""

import torch
from jaxtyping import Float
from torch import Tensor

from dove.models.fsq import FsqTokenGenerator
from dove.tokenizer import Dove

PROBES = 4
"""Random directions in image space that a decoder's sensitivity is estimated from, for every batch."""
FIT_IMAGES = 1024
"""Images, at most, that levels are fitted to."""
FIT_PROBED = 128
"""Those of them at which sensitivity is measured."""


def token_sensitivity(
    model: Dove, values: Float[Tensor, "M K D"], generator: torch.Generator, batch_size: int = 16
) -> Float[Tensor, "K D"]:
    """How far the picture moves, in the root of summed squared pixels ([-1, 1]), when a number of a token moves by one.

    The square is the mean over directions v of (d v.x / d token)^2 for v of independent signs, averaged over images.
    """
    total, count = torch.zeros_like(values[0]), 0
    for part in values.split(batch_size):
        part = part.clone().requires_grad_(True)
        with torch.enable_grad():
            picture = model.reconstruct_from(part)
            for _ in range(PROBES):
                signs = torch.randint(0, 2, picture.shape, generator=generator).to(picture) * 2 - 1
                (gradient,) = torch.autograd.grad((signs * picture).sum(), part, retain_graph=True)
                total += gradient.square().sum(0)
                count += len(part)
    return (total / count).sqrt()


@torch.no_grad()
def fit_grid(model: Dove, images: Float[Tensor, "M 3 S S"], seed: int = 0) -> None:
    """Set the levels of a model with FSQ tokens to what its unrounded tokens of ``images`` ([-1, 1]) need.

    Args:
        model: with the weights it starts from.
        images: a few hundred or more; at most 1024 of them, evenly spaced, are used.
        seed: of the directions in which sensitivity is measured.
    """
    generator = model.generator
    assert isinstance(generator, FsqTokenGenerator)
    images = images[:: -(-len(images) // FIT_IMAGES)]
    values = torch.cat([generator.unrounded(model.latents(part)) for part in images.split(64)])
    draws = torch.Generator().manual_seed(seed)
    probed = values[:: -(-len(values) // FIT_PROBED)]
    generator.rounding.fit(values, token_sensitivity(model, probed, draws), model.config.token_fineness)
