"""The PatchGAN discriminator: one real-or-fake logit per overlapping patch."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DiscriminatorConfig
from dove.errors import UserError

_KERNEL = 4
_GROUPS = 8
_MAX_WIDENING = 8


class PatchDiscriminator(nn.Module):
    """A stack of strided convolutions from images to patch logits.

    Group norms replace PatchGAN's batch norms: the adversarial loss is computed per sample, so a sample's logits
    must not depend on the rest of its batch, nor on how a batch is spread over processes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.width < 1 or config.width % _GROUPS:
            raise UserError(f"discriminator width={config.width} is not a positive multiple of {_GROUPS}")
        if config.layers < 1:
            raise UserError(f"discriminator layers={config.layers} is below 1")
        self.config = config
        self.min_image_size = 3 * 2**config.layers
        widths = [config.width * min(2**layer, _MAX_WIDENING) for layer in range(config.layers + 1)]
        first = nn.Conv2d(3, widths[0], _KERNEL, stride=2, padding=1)
        blocks: list[nn.Module] = [first, nn.LeakyReLU(0.2)]
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < config.layers else 1
            blocks += [
                nn.Conv2d(fan_in, fan_out, _KERNEL, stride=stride, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, fan_out),
                nn.LeakyReLU(0.2),
            ]
        blocks.append(nn.Conv2d(widths[-1], 1, _KERNEL, padding=1))
        self.blocks = nn.Sequential(*blocks)
        self.apply(_initialise)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 h w"]:
        """Compute logits, positive for real images, of H // 2**layers - 2 by W // 2**layers - 2 patches.

        Raises:
            UserError: If the images, in [-1, 1], are too small for the number of layers.
        """
        if min(images.shape[-2:]) < self.min_image_size:
            raise UserError(
                f"images of {images.shape[-1]}x{images.shape[-2]} px are too small for a discriminator of "
                f"{self.config.layers} layers, which needs {self.min_image_size} px; use fewer layers"
            )
        return self.blocks(images)


def _initialise(module: nn.Module) -> None:
    """Draw weights from PatchGAN's narrow normal distribution, under which the first logits are near 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
