"""The VQGAN without attention that MaskGIT introduced: the pixels side of ALIT and the decoder of the two-stage TiTok.

Parameter names are those of its PyTorch port, which TiTok's checkpoints contain; ``from_taming_name`` translates the
names of the port in the style of "taming transformers", which ALIT's checkpoints contain.
"""

import re

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.config import MaskgitVQGANConfig
from dove.models.vqgan import Codebook


def _conv(fan_in: int, fan_out: int, *, kernel: int = 3, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, kernel, padding=kernel // 2, bias=bias)


def _norm(channels: int, config: MaskgitVQGANConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


class Residual(nn.Module):
    """Two normalised convolutions added to their input."""

    def __init__(self, channels: int, config: MaskgitVQGANConfig, fan_in: int | None = None):
        super().__init__()
        self.norm1 = _norm(fan_in or channels, config)
        self.conv1 = _conv(fan_in or channels, channels)
        self.norm2 = _norm(channels, config)
        self.conv2 = _conv(channels, channels)

    def forward(self, hidden: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        """Add the branch to the input."""
        return hidden + self.branch(hidden)

    def branch(self, hidden: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        """Compute the two convolutions, which are added to the input."""
        hidden = self.conv1(F.silu(self.norm1(hidden)))
        return self.conv2(F.silu(self.norm2(hidden)))


class Widening(Residual):
    """Residual block that changes the number of channels.

    The published weights were trained with the shortcut taken from the branch's own output, not from its input: the
    block has no path around its convolutions.
    """

    def __init__(self, fan_in: int, channels: int, config: MaskgitVQGANConfig):
        super().__init__(channels, config, fan_in)
        self.nin_shortcut = _conv(channels, channels, kernel=1)

    def forward(self, hidden: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        """Apply the convolutions and add the shortcut of their output."""
        hidden = self.branch(hidden)
        return hidden + self.nin_shortcut(hidden)


class Level(nn.Module):
    """The residual blocks of one resolution."""

    def __init__(self, fan_in: int, channels: int, config: MaskgitVQGANConfig):
        super().__init__()
        first = Residual(channels, config) if fan_in == channels else Widening(fan_in, channels, config)
        rest = [Residual(channels, config) for _ in range(config.num_res_blocks - 1)]
        self.block = nn.Sequential(first, *rest)

    def forward(self, hidden: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        """Apply the residual blocks."""
        return self.block(hidden)


class UpLevel(Level):
    """Residual blocks of one resolution and an upsampling to twice its side."""

    def __init__(self, fan_in: int, channels: int, config: MaskgitVQGANConfig):
        super().__init__(fan_in, channels, config)
        self.upsample_conv = _conv(channels, channels, bias=True)

    def forward(self, hidden: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h2 w2"]:
        """Apply the residual blocks and double the sides."""
        hidden = F.interpolate(super().forward(hidden), scale_factor=2.0, mode="nearest")
        return self.upsample_conv(hidden)


class PixelEncoder(nn.Module):
    """Convolutions from pixels to a grid of latents."""

    def __init__(self, config: MaskgitVQGANConfig):
        super().__init__()
        widths = [config.hidden_channels * factor for factor in config.channel_mult]
        self.conv_in = _conv(3, config.hidden_channels)
        fan_ins = [config.hidden_channels, *widths[:-1]]
        self.down = nn.ModuleList(Level(*pair, config) for pair in zip(fan_ins, widths, strict=True))
        self.mid = nn.Sequential(*(Residual(widths[-1], config) for _ in range(config.num_res_blocks)))
        self.norm_out = _norm(widths[-1], config)
        self.conv_out = _conv(widths[-1], config.latent_channels, kernel=1, bias=True)

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Compute latents, row by row, of images in [-1, 1]."""
        hidden = self.down[0](self.conv_in((images + 1) / 2))
        for level in self.down[1:]:
            hidden = level(F.avg_pool2d(hidden, 2))
        grid: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(hidden))))
        return grid.flatten(2).transpose(1, 2)


class PixelDecoder(nn.Module):
    """Convolutions from a grid of latents to pixels."""

    def __init__(self, config: MaskgitVQGANConfig):
        super().__init__()
        widths = [config.hidden_channels * factor for factor in config.channel_mult]
        self.conv_in = _conv(config.latent_channels, widths[-1], bias=True)
        self.mid = nn.Sequential(*(Residual(widths[-1], config) for _ in range(config.num_res_blocks)))
        fan_ins = [*widths[1:], widths[-1]]
        kinds = [Level] + [UpLevel] * (len(widths) - 1)
        # up[0] is the last to run, at full resolution
        self.up = nn.ModuleList(
            kind(fan_in, width, config) for kind, fan_in, width in zip(kinds, fan_ins, widths, strict=True)
        )
        self.norm_out = _norm(widths[0], config)
        self.conv_out = _conv(widths[0], 3, bias=True)

    def forward(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 S S"]:
        """Decode latents in row-major order to images, in [-1, 1] up to overshoot."""
        side = round(latents.shape[1] ** 0.5)
        hidden = self.mid(self.conv_in(torch.unflatten(latents.transpose(1, 2), 2, (side, side))))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden))) * 2 - 1


class MaskgitVQGAN(nn.Module):
    """Encoder, codebook and decoder. Latents are row-major sequences."""

    def __init__(self, config: MaskgitVQGANConfig):
        super().__init__()
        self.config = config
        self.encoder = PixelEncoder(config)
        self.decoder = PixelDecoder(config)
        self.quantize = Codebook(config.codebook_size, config.latent_channels)

    def encode(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Compute continuous latents of images in [-1, 1]."""
        return self.encoder(images)

    def decode(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 S S"]:
        """Decode latents to images, in [-1, 1] up to overshoot."""
        return self.decoder(latents)


def mix_codes(logits: Float[Tensor, "B N V"], entries: Float[Tensor, "V C"]) -> Float[Tensor, "B N C"]:
    """Compute the mean codebook entry under the predicted distribution, at every position."""
    return logits.softmax(-1) @ entries


def from_taming_name(name: str) -> str:
    """Translate a parameter's name in the style of "taming transformers" to its name here."""
    name = re.sub(r"\bmid\.block_(\d+)\.", lambda match: f"mid.{int(match[1]) - 1}.", name)
    return name.replace(".upsample.conv.", ".upsample_conv.")
