"""Distances of reconstructions from their images."""

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_ERROR = 1e-10
"""Lower bound on mean squared errors: 100 dB, so that two equal images give a finite number."""


def psnr(images: Float[Tensor, "B 3 H W"], others: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Compute the peak signal-to-noise ratio in dB, image by image.

    Pixels in [-1, 1] are clamped and mapped to [0, 1] first; the peak is 1.
    """
    scaled, others = (unit_range(pixels.float()) for pixels in (images, others))
    return decibels((scaled - others).square().flatten(1).mean(1))


def unit_range(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Map pixels from [-1, 1], clamped, to [0, 1]."""
    return images.clamp(-1, 1).add(1).div(2)


def decibels(error: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Convert mean squared errors of pixels in [0, 1] to PSNR; at most 100 dB."""
    return -10 * torch.log10(error.clamp(min=LEAST_ERROR))
