"""Settings of the baselines. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MaskgitVQGANConfig:
    """Settings of a convolutional VQGAN without attention. The defaults are the published one with 1,024 codes."""

    image_size: int = 256
    """Side of the square input, in pixels."""
    hidden_channels: int = 128
    """Channels at full resolution."""
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels by resolution level, in hidden_channels; every level but the last halves the side."""
    num_res_blocks: int = 2
    """Residual blocks per level, and in the middle."""
    latent_channels: int = 256
    """Width C of a latent and of a codebook entry."""
    codebook_size: int = 1024
    """Number V of codebook entries."""
    norm_groups: int = 32
    """Groups of the group norms."""

    @property
    def grid_size(self) -> int:
        """Side h = w of the latent grid."""
        return int(self.image_size // 2 ** (len(self.channel_mult) - 1))


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of a stack of pre-norm blocks in which every position sees every other."""

    width: int
    """Width of the residual stream."""
    num_layers: int
    """Number of blocks."""
    num_heads: int
    """Attention heads; the MLPs are four times the width."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights. Both papers' value suits their widths of 512 and more; at a width of 100 it
    leaves the first tokens nearly the same for all images."""


@dataclass(frozen=True, kw_only=True)
class TiTokConfig:
    """Settings of TiTok. The defaults, with a transformer and a number of tokens, are the published two-stage models."""

    transformer: TransformerConfig
    """Sizes of both the encoder and the decoder."""
    num_tokens: int
    """Tokens K of every image."""
    image_size: int = 256
    """Side of the square input, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels."""
    codebook_size: int = 4096
    """Number V of codebook entries."""
    token_dim: int = 12
    """Width D of a token."""
    projection: Literal["scrambled", "per-token"] = "scrambled"
    """Projection of hidden states to tokens. The two-stage models were trained with a (K, H) matrix read as (H, K), so that a
    token mixes pieces of all hidden states; "per-token" projects hidden state i to token i, as later models do."""
    head: Literal["codes", "pixels"] = "codes"
    """Output of the decoder: the codes of a VQGAN whose decoder paints them (two stages), or pixels (one stage)."""
    vqgan: MaskgitVQGANConfig = field(default_factory=MaskgitVQGANConfig)
    """Sizes of the VQGAN of head="codes"."""

    @property
    def grid_size(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise UserError(f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}")
        if self.head == "codes" and (self.vqgan.image_size, self.vqgan.grid_size) != (self.image_size, self.grid_size):
            raise UserError(
                f"the VQGAN has a grid of {self.vqgan.grid_size} for {self.vqgan.image_size} px, "
                f"TiTok one of {self.grid_size} for {self.image_size} px; they must agree"
            )


@dataclass(frozen=True, kw_only=True)
class ALITConfig:
    """Settings of ALIT on quantised latents. The defaults, with a transformer, are the published models on a VQGAN."""

    transformer: TransformerConfig
    """Sizes of both the encoder and the decoder."""
    tokens_per_rollout: int = 32
    """Tokens that every roll-out adds."""
    num_rollouts: int = 8
    """Number of roll-outs; the capacity K is tokens_per_rollout times as large."""
    patch_size: int = 16
    """Side of a patch, in pixels; the VQGAN's cells have the same."""
    codebook_size: int = 4096
    """Number V of entries of the tokens' codebook."""
    token_dim: int = 12
    """Width D of a token."""
    halting_threshold: float | None = 0.55
    """Probability, in [0, 1], from which dynamic halting masks image tokens in the roll-outs that follow: the decoder gives
    their VQGAN code at least as much. None masks none."""
    error_threshold: float = 0.07
    """Mean absolute error, pixels in [0, 1], below which num_tokens="auto" stops at a roll-out."""
    vqgan: MaskgitVQGANConfig = field(default_factory=MaskgitVQGANConfig)
    """Sizes of the VQGAN."""

    @property
    def max_tokens(self) -> int:
        """Capacity K."""
        return self.tokens_per_rollout * self.num_rollouts

    def __post_init__(self) -> None:
        if self.vqgan.latent_channels >= self.transformer.width:
            raise UserError(
                f"transformer width {self.transformer.width} leaves no room beside the VQGAN's "
                f"{self.vqgan.latent_channels} latent channels; widen it"
            )
        if self.patch_size * self.vqgan.grid_size != self.vqgan.image_size:
            raise UserError(f"patch_size={self.patch_size} differs from the side of the VQGAN's latent cells")


TITOKS: dict[str, TiTokConfig] = {
    "titok-l32": TiTokConfig(transformer=TransformerConfig(width=1024, num_layers=24, num_heads=16), num_tokens=32),
    "titok-b64": TiTokConfig(transformer=TransformerConfig(width=768, num_layers=12, num_heads=12), num_tokens=64),
    "titok-s128": TiTokConfig(transformer=TransformerConfig(width=512, num_layers=8, num_heads=8), num_tokens=128),
}  # Every TiTok by name: the published two-stage models

ALITS: dict[str, ALITConfig] = {
    "alit-small": ALITConfig(transformer=TransformerConfig(width=1024, num_layers=8, num_heads=8)),
    "alit-base": ALITConfig(transformer=TransformerConfig(width=768, num_layers=12, num_heads=12)),
    "alit-semilarge": ALITConfig(transformer=TransformerConfig(width=1024, num_layers=16, num_heads=16)),
    "alit-512": ALITConfig(transformer=TransformerConfig(width=512, num_layers=8, num_heads=8)),
}
"""Every ALIT by name: the published configurations (``alit-512`` is the one that their code calls tiny, without a
checkpoint)."""
