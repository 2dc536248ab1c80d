"""VQGAN: convolutions from pixels to a grid of latents and back, with a codebook.

Parameters have the names of diffusers' ``VQModel`` (Esser et al., "Taming transformers", 2021; the "amused" VQGAN that
initialises the paper's model), so its checkpoints load by name. A fixed pixel unshuffle by ``patch_size`` in front and its
inverse behind let small models convolve at a fraction of the resolution; at the paper's sizes it is the identity.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.nn import functional as F

from dove.config import VQGANConfig
from dove.errors import UserError

COMMITMENT = 0.25
"""Weight of the commitment loss (van den Oord et al., "Neural discrete representation learning", Eq. 3)."""
WIDE = 2**20  # Activations of one image above which a level is wide

PIXEL_RANGES = {"-1..1": (1.0, 0.0), "0..1": (0.5, 0.5)}  # Factor and summand that take pixels in [-1, 1] into a range


def group_norm(config: VQGANConfig, channels: int) -> nn.GroupNorm:
    """Make a group norm as the VQGAN uses it."""
    if config.norm_groups < 1 or channels % config.norm_groups:
        raise UserError(f"norm_groups={config.norm_groups} must divide the channels of all levels; {channels} are not")
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


def silu(grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
    """Compute SiLU, over the input where no backward needs it: large results cost new memory."""
    return F.silu(grid, inplace=not torch.is_grad_enabled())


def add(grid: Float[Tensor, "B c h w"], summand: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
    """Add, over the first input without gradients."""
    return grid + summand if torch.is_grad_enabled() else grid.add_(summand)


def wide_levels(config: VQGANConfig) -> int:
    """Count the levels, from the pixels on, on which an image has more than ``WIDE`` activations."""
    side = config.image_size // config.patch_size
    sizes = [channels * (side >> level) ** 2 for level, channels in enumerate(config.block_out_channels)]
    return next((level for level, size in enumerate(sizes) if size <= WIDE), len(sizes))


def run(
    stages: Iterable[Callable[[Tensor], Tensor]], batch: Float[Tensor, "B _ _ _"], images_at_once: int | None = None
) -> Float[Tensor, "B _ _ _"]:
    """Run stages one after the other, on at most so many images at a time; None takes all."""
    if images_at_once and len(batch) > images_at_once:
        return torch.cat([run(stages, part) for part in batch.split(images_at_once)])
    for stage in stages:
        batch = stage(batch)
    return batch


class ResnetBlock(nn.Module):
    """Two 3 x 3 convolutions behind group norms, added to their input."""

    def __init__(self, config: VQGANConfig, channels: int, out_channels: int):
        super().__init__()
        self.norm1 = group_norm(config, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(config, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels:
            self.conv_shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        """Apply both convolutions and add the input, projected where the width changes."""
        hidden = self.conv1(silu(self.norm1(grid)))
        hidden = self.conv2(silu(self.norm2(hidden)))
        return add(hidden, self.conv_shortcut(grid) if hasattr(self, "conv_shortcut") else grid)


def resnet_blocks(config: VQGANConfig, channels: int, out_channels: int, count: int) -> nn.ModuleList:
    """Make the residual blocks of one resolution, of which the first changes the width."""
    widths = [channels] + [out_channels] * count
    return nn.ModuleList(ResnetBlock(config, *pair) for pair in pairwise(widths))


class Downsample(nn.Module):
    """A convolution of stride 2, padded below and to the right."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h2 w2"]:
        """Halve the sides."""
        return self.conv(F.pad(grid, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h2 w2"]:
        """Double the sides."""
        return self.conv(F.interpolate(grid, scale_factor=2.0, mode="nearest"))


class GridAttention(nn.Module):
    """Self-attention of one head over all positions of a grid, added to its input."""

    def __init__(self, config: VQGANConfig, channels: int):
        super().__init__()
        self.group_norm = group_norm(config, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Attend and add the input."""
        sequence = self.group_norm(grid).flatten(2).transpose(1, 2)
        query, key, value = (project(sequence)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out[0](F.scaled_dot_product_attention(query, key, value)[:, 0])
        return grid + mixed.transpose(1, 2).view_as(grid)


class MidBlock(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them where the config asks for it."""

    def __init__(self, config: VQGANConfig, channels: int):
        super().__init__()
        self.attentions = nn.ModuleList([GridAttention(config, channels)] if config.mid_attention else [])
        self.resnets = resnet_blocks(config, channels, channels, 2)

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Apply the blocks."""
        return run([self.resnets[0], *self.attentions, self.resnets[1]], grid)


class DownBlock(nn.Module):
    """One resolution of the encoder, and a halving of the sides unless it is the last."""

    def __init__(self, config: VQGANConfig, channels: int, out_channels: int, *, last: bool):
        super().__init__()
        self.resnets = resnet_blocks(config, channels, out_channels, config.layers_per_block)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels)])

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h2 w2"]:
        """Apply the blocks, then halve the sides."""
        return run([*self.resnets, *self.downsamplers], grid)


class UpBlock(nn.Module):
    """One resolution of the decoder, and a doubling of the sides unless it is the last."""

    def __init__(self, config: VQGANConfig, channels: int, out_channels: int, *, last: bool):
        super().__init__()
        self.resnets = resnet_blocks(config, channels, out_channels, config.layers_per_block + 1)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, grid: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h2 w2"]:
        """Apply the blocks, then double the sides."""
        return run([*self.resnets, *self.upsamplers], grid)


class Encoder(nn.Module):
    """Pixels (unshuffled) to features at the lowest resolution."""

    images_at_once: int | None = None
    """Images at a time on the wide levels, which come first; None takes the whole batch."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.wide = wide_levels(config)
        widths = [config.block_out_channels[0], *config.block_out_channels]
        last = len(config.block_out_channels) - 1
        self.conv_in = nn.Conv2d(3 * config.patch_size**2, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(config, widths[level], widths[level + 1], last=level == last) for level in range(last + 1)
        )
        self.mid_block = MidBlock(config, widths[-1])
        self.conv_norm_out = group_norm(config, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "B c H W"]) -> Float[Tensor, "B l h w"]:
        """Encode."""
        wide, rest = self.down_blocks[: self.wide], self.down_blocks[self.wide :]
        grid = run([self.conv_in, *wide], pixels, self.images_at_once if self.wide else None)
        return self.conv_out(silu(self.conv_norm_out(run([*rest, self.mid_block], grid))))


class Decoder(nn.Module):
    """Features at the lowest resolution to pixels (still unshuffled)."""

    images_at_once: int | None = None
    """Images at a time on the wide levels, which come last; None takes the whole batch."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.wide = wide_levels(config)
        widths = [config.block_out_channels[-1], *reversed(config.block_out_channels)]
        last = len(config.block_out_channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.ModuleList(
            UpBlock(config, widths[level], widths[level + 1], last=level == last) for level in range(last + 1)
        )
        self.mid_block = MidBlock(config, widths[0])
        self.conv_norm_out = group_norm(config, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3 * config.patch_size**2, 3, padding=1)

    def forward(self, grid: Float[Tensor, "B l h w"]) -> Float[Tensor, "B c H W"]:
        """Decode."""
        first = len(self.up_blocks) - self.wide
        grid = run([self.conv_in, self.mid_block, *self.up_blocks[:first]], grid)
        stages = [*self.up_blocks[first:], self.conv_norm_out, silu, self.conv_out]
        return run(stages, grid, self.images_at_once if self.wide else None)


@dataclass(frozen=True)
class Quantized:
    """Codebook entries in place of latents.

    Attributes:
        values: the entries, with the gradient of the latents they replace.
        ids: ids of the entries.
        loss: mean over batch, positions and channels of the codebook and the commitment loss.
        latents: the latents as they were compared with the entries.
    """

    values: Float[Tensor, "B L D"]
    ids: Int[Tensor, "B L"]
    loss: Float[Tensor, ""]
    latents: Float[Tensor, "B L D"]


class Codebook(nn.Module):
    """Codebook of V entries for nearest-neighbour quantisation."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size, width)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)

    def entries(self) -> Float[Tensor, "V D"]:
        """Return the V entries that replace latents."""
        return self.embedding.weight

    def prepare(self, latents: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Bring latents to the form in which they are compared with the entries."""
        return latents

    def lookup(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Look up the entries of ids."""
        return F.embedding(ids, self.entries())

    def forward(self, latents: Float[Tensor, "B L D"]) -> Quantized:
        """Quantise latents to their nearest entries."""
        latents, entries = self.prepare(latents.float()), self.entries().float()
        device = latents.device.type if is_autocast_available(latents.device.type) else "cpu"  # meta has no autocast
        with torch.autocast(device, enabled=False):  # the nearest entry is a matter of small differences
            # |z - e|^2 without |z|^2, which is the same for all entries
            ids = (entries.square().sum(1) - 2 * latents @ entries.T).argmin(-1)
        values = F.embedding(ids, entries)
        loss = F.mse_loss(values, latents.detach()) + COMMITMENT * F.mse_loss(latents, values.detach())
        return Quantized(latents + (values - latents).detach(), ids, loss, latents)


class VQGAN(nn.Module):
    """VQGAN with the codebook beside, not inside, the data path.

    Latents are handed over as a row-major sequence: grid cell (y, x) of an ``h x w`` grid is position ``y * w + x``.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.pixel_scale, self.pixel_shift = PIXEL_RANGES[config.pixel_range]
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.channels, 1)
        self.quantize = Codebook(config.codebook_size, config.channels)
        self.post_quant_conv = nn.Conv2d(config.channels, config.latent_channels, 1)
        self.decoder = Decoder(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which the convolutions compute."""
        return self.quant_conv.weight.dtype

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Compute continuous latents of images in [-1, 1], before any codebook look-up."""
        scaled = images.to(self.dtype) * self.pixel_scale + self.pixel_shift
        grid: Tensor = self.quant_conv(self.encoder(F.pixel_unshuffle(scaled, self.config.patch_size)))
        return grid.flatten(2).transpose(1, 2)

    def decode(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 H W"]:
        """Decode continuous latents to images in [-1, 1], up to the network's overshoot."""
        side = self.config.grid_size
        # Contiguous, as convolutions keep the format of their input, and the backward of group norms on a CPU is several
        # times slower with channels last.
        grid = latents.to(self.dtype).transpose(1, 2).contiguous().unflatten(2, (side, side))
        pixels = F.pixel_shuffle(self.decoder(self.post_quant_conv(grid)), self.config.patch_size)
        return (pixels - self.pixel_shift) / self.pixel_scale
