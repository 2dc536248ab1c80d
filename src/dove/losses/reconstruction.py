"""Eq. 2: the distance of a reconstruction from its image, per sample."""

from jaxtyping import Float
from torch import Tensor

from dove.losses.config import ReconstructionWeights


def squared_error(reconstruction: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Compute the mean squared error over the pixels and channels of each sample.

    Args:
        reconstruction: (B, C, H, W), in [-1, 1], not necessarily clamped.
        images: (B, C, H, W), in [-1, 1].

    Returns:
        (B,) in float32, 0 to 4 for clamped input. Values are on the [-1, 1] scale: four times those on [0, 1].
    """
    return (reconstruction.float() - images.float()).square().mean(dim=(1, 2, 3))


def reconstruction_loss(
    mse: Float[Tensor, " B"],
    perceptual: Float[Tensor, " B"],
    generator_gan: Float[Tensor, " B"],
    weights: ReconstructionWeights,
) -> Float[Tensor, " B"]:
    """Compute Eq. 2 per sample: ``w_mse * L_mse + w_perc * L_perc + w_gan * L_gan``.

    It stays per sample because Eq. 3 compares each sample's own loss with the running threshold.

    Args:
        mse: (B,) from `squared_error`.
        perceptual: (B,) from a `dove.losses.perceptual.PerceptualDistance`.
        generator_gan: (B,) from `dove.losses.adversarial.generator_loss`.
        weights: The three factors.
    """
    return weights.mse * mse + weights.perceptual * perceptual + weights.gan * generator_gan
