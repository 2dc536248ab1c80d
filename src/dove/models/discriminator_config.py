"""Settings of the discriminator. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """A PatchGAN discriminator. The defaults see 70 x 70 pixels per logit."""

    width: int = 64
    """Channels after the first convolution; a multiple of 8. Later ones have up to 8 times as many."""
    layers: int = 3
    """Convolutions that halve the side. Images need a side of at least 3 * 2**layers pixels."""
