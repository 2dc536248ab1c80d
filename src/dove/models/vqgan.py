"""The convolutional image ends: pixels to a grid of latents and back.

The network is diffusers' ``VQModel`` (the architecture behind the "amused" VQGAN that the paper starts from). In front
of it and behind it sits a fixed pixel unshuffle/shuffle by ``patch_size``, which is the identity at the paper's sizes
(``patch_size=1``) and lets the small presets do all their convolutions at quarter resolution and below.
"""

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import VQGANConfig


class VQGAN(nn.Module):
    """VQGAN with the codebook beside, not inside, the data path.

    Latents are handed over as a row-major sequence: grid cell (y, x) of an ``h x w`` grid is position ``y * w + x``.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.model = VQModel(
            in_channels=3 * config.patch_size**2,
            out_channels=3 * config.patch_size**2,
            down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),
            up_block_types=("UpDecoderBlock2D",) * len(config.block_out_channels),
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            sample_size=config.image_size // config.patch_size,
            num_vq_embeddings=config.codebook_size,
            norm_num_groups=config.norm_groups,
            vq_embed_dim=config.embedding_dim,
            mid_block_add_attention=config.mid_attention,
        )

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are in, and so what the convolutions compute in."""
        return self.model.encoder.conv_in.weight.dtype

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Continuous latents of images in [-1, 1], before any codebook look-up."""
        return self._encode_grid(images.to(self.dtype)).flatten(2).transpose(1, 2)

    def decode(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 H W"]:
        """Images, in [-1, 1] up to the network's overshoot, from continuous latents."""
        return self._decode_grid(self._to_grid(latents.to(self.dtype)))

    def quantize(
        self, latents: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B N C"], Float[Tensor, ""], Int[Tensor, "B N"]]:
        """Nearest codebook entries (straight-through gradient), the codebook and commitment loss, and the token ids."""
        quantized, loss, (_, _, ids) = self.model.quantize(self._to_grid(latents))
        return quantized.flatten(2).transpose(1, 2), loss, ids.view(latents.shape[:2])

    def _encode_grid(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.model.encode(F.pixel_unshuffle(images, self.config.patch_size)).latents

    def _decode_grid(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        patches = self.model.decode(grid, force_not_quantize=True).sample
        return F.pixel_shuffle(patches, self.config.patch_size)

    def _to_grid(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B C h w"]:
        side = self.config.grid_size
        return latents.transpose(1, 2).unflatten(2, (side, side))


class ShortcutVQGAN(VQGAN):
    """VQGAN whose convolutions are the residual of a linear map between cells of pixels and latents.

    A latent cell covers ``image_size / grid_size`` pixels a side. The linear maps can be set to the principal components
    of such patches (:func:`dove.closed_form.start_from_patches`); the last layer of either convolutional branch starts at
    zero, so that training starts from the linear solution.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__(config)
        self.cell = config.image_size // config.grid_size
        self.embed = nn.Conv2d(3, config.channels, self.cell, stride=self.cell)
        self.unembed = nn.ConvTranspose2d(config.channels, 3, self.cell, stride=self.cell)
        for last in (self.model.quant_conv, self.model.decoder.conv_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def _encode_grid(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.embed(images) + super()._encode_grid(images)

    def _decode_grid(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.unembed(grid) + super()._decode_grid(grid)


def make_vqgan(config: VQGANConfig) -> VQGAN:
    """The image ends that ``config`` describes."""
    return (ShortcutVQGAN if config.linear_shortcut else VQGAN)(config)
