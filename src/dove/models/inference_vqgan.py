"""The convolutional image ends with less to do, for models that are not trained any further.

Beside the convolutions themselves three things cost time: passes over memory that could be spared (here: sums and
activations in place); memory that the system has to find anew for every large result (here: wide levels image by image on
a CPU, which keeps results small enough to be handed on); and weights, which torch brings into the processor's order at
every call (here: all images at once where they are small and the weights large).
"""

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 2**20
"""Numbers of one image's activations above which a level runs in parts."""


class InferenceEncoder(Encoder):
    """diffusers' encoder whose first, wide levels see ``images_at_once`` images."""

    images_at_once: int
    wide: int
    """How many of the first levels run in parts."""

    def forward(self, sample: Float[Tensor, "B c H W"]) -> Float[Tensor, "B C h w"]:
        hidden = in_parts(self._wide, sample, self.images_at_once if self.wide else len(sample))
        for block in self.down_blocks[self.wide :]:
            hidden = block(hidden)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(hidden)), inplace=True))

    def _wide(self, sample: Float[Tensor, "B c H W"]) -> Float[Tensor, "B d h w"]:
        hidden = self.conv_in(sample)
        for block in self.down_blocks[: self.wide]:
            hidden = block(hidden)
        return hidden


class InferenceDecoder(Decoder):
    """diffusers' decoder whose last, wide levels see ``images_at_once`` images."""

    images_at_once: int
    wide: int
    """How many of the last levels run in parts."""

    def forward(self, sample: Float[Tensor, "B C h w"], latent_embeds: None = None) -> Float[Tensor, "B c H W"]:
        """``latent_embeds`` is diffusers' condition, which image ends don't have."""
        hidden = self.mid_block(self.conv_in(sample))
        for block in self.up_blocks[: len(self.up_blocks) - self.wide]:
            hidden = block(hidden)
        return in_parts(self._wide, hidden, self.images_at_once if self.wide else len(hidden))

    def _wide(self, hidden: Float[Tensor, "B d h w"]) -> Float[Tensor, "B c H W"]:
        for block in self.up_blocks[len(self.up_blocks) - self.wide :]:
            hidden = block(hidden)
        return self.conv_out(F.silu(self.conv_norm_out(hidden), inplace=True))


def in_parts(
    run: Callable[[Tensor], Tensor], batch: Float[Tensor, "B _ _ _"], images_at_once: int
) -> Float[Tensor, "B _ _ _"]:
    """What ``run`` makes of a batch, of at most so many images at once."""
    if len(batch) <= images_at_once:
        return run(batch)
    return torch.cat([run(part) for part in batch.split(images_at_once)])


class InferenceResidual(nn.Module):
    """diffusers' residual block with activations and sums in place; its parameters are that block's."""

    def __init__(self, block: ResnetBlock2D):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, images: Float[Tensor, "B c h w"], temb: None = None) -> Float[Tensor, "B d h w"]:
        """``temb`` is diffusers' time embedding, which image ends don't have."""
        hidden = self.conv1(F.silu(self.norm1(images), inplace=True))
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        hidden += images if self.conv_shortcut is None else self.conv_shortcut(images)
        return hidden
