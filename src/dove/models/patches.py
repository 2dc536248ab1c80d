"""Patch autoencoder in place of the VQGAN, for small models without pretrained weights.

Beside a cosine prior a VQGAN's convolutions take twice the time, for no gain in short trials: see the research log.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import VQGANConfig


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Apply both convolutions and add the input."""
        return grid + self.conv2(F.gelu(self.conv1(F.gelu(grid))))


class PatchAutoencoder(nn.Module):
    """Linear embedding of cells of ``patch_size`` pixels, and a decoder with convolutions at twice the grid's resolution.

    Latents are a row-major sequence: grid cell (y, x) of an ``h x w`` grid is position ``y * w + x``.

    The first of ``block_out_channels`` is the width of the convolutions, ``layers_per_block`` their number of residual pairs.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        width, self.subpatch_size = config.block_out_channels[0], config.patch_size // 2
        self.embed = nn.Linear(3 * config.patch_size**2, config.channels)
        self.unembed = nn.Linear(config.channels, 4 * width)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(config.layers_per_block)))
        self.conv_out = nn.Conv2d(width, 3 * self.subpatch_size**2, 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embed.weight.dtype

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Embed the cells of images in [-1, 1]."""
        cells = F.pixel_unshuffle(images.to(self.dtype), self.config.patch_size)
        return self.embed(cells.flatten(2).transpose(1, 2))

    def decode(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 H W"]:
        """Decode latents to images."""
        side = self.config.grid_size
        grid = self.unembed(latents.to(self.dtype)).transpose(1, 2).unflatten(2, (side, side))
        grid = self.blocks(F.pixel_shuffle(grid, 2))
        return F.pixel_shuffle(self.conv_out(F.gelu(grid)), self.subpatch_size)
