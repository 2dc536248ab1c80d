"""Eq. 2: the distance of a reconstruction from its image, per sample."""

from jaxtyping import Float
from torch import Tensor


def squared_error(reconstruction: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Compute the mean squared error over the pixels, in [-1, 1], and channels of each sample, in float32.

    It is from 0 to 4 for clamped input: four times that of pixels in [0, 1].
    """
    return (reconstruction.float() - images.float()).square().mean(dim=(1, 2, 3))


def reconstruction_loss(
    mse: Float[Tensor, " B"],
    perceptual: Float[Tensor, " B"],
    generator_gan: Float[Tensor, " B"],
    weights: tuple[float, float, float],
) -> Float[Tensor, " B"]:
    """Compute Eq. 2 per sample: ``w_mse * L_mse + w_perc * L_perc + w_gan * L_gan``, with the weights in this order.

    It stays per sample because Eq. 3 compares each sample's own loss with the running threshold.
    """
    w_mse, w_perceptual, w_gan = weights
    return w_mse * mse + w_perceptual * perceptual + w_gan * generator_gan
