"""Adversarial losses of generator and discriminator, from the discriminator's patch logits."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def hinge_discriminator_loss(
    real_logits: Float[Tensor, "B 1 h w"], fake_logits: Float[Tensor, "B 1 h w"]
) -> Float[Tensor, ""]:
    """Compute ``(mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))) / 2`` over the batch and its patches.

    Reconstructions are detached from the model that made them.
    """
    return 0.5 * (F.relu(1.0 - real_logits.float()).mean() + F.relu(1.0 + fake_logits.float()).mean())


def generator_loss(fake_logits: Float[Tensor, "B 1 h w"]) -> Float[Tensor, " B"]:
    """Compute ``-mean(D(x_hat))`` over the patches of each sample: L_gan of Eq. 2."""
    return -fake_logits.float().mean(dim=(1, 2, 3))
