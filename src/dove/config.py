"""Settings of models as frozen dataclasses. Imports no torch, so that ``dove --help`` answers at once."""

from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dove.errors import UserError


def added(default: Any) -> Any:
    """Declare a setting that older checkpoints may lack; those get the default."""
    return field(default=default, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Settings of the VQGAN. The defaults are the "amused" VQGAN that initialises the paper's model."""

    image_size: int = 256
    """Side of the square input, in pixels."""
    patch_size: int = 1
    """Factor of the pixel unshuffle in front of the convolutions; 1 convolves at full resolution."""
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512, 768)
    """Channels by resolution level; every level but the last halves the side."""
    layers_per_block: int = 2
    """Residual blocks per level."""
    latent_channels: int = 64
    """Channels between the convolutions and the codebook projection."""
    embedding_dim: int | None = None
    """Width C of a latent and of a codebook entry; None for ``latent_channels``."""
    codebook_size: int = 8192
    """Number V of codebook entries."""
    norm_groups: int = 32
    """Groups of the group norms."""
    mid_attention: bool = False
    """Self-attention at the lowest resolution."""
    pixel_range: Literal["-1..1", "0..1"] = added("-1..1")
    """Range of the pixels that the convolutions take and give. Images are in [-1, 1] everywhere else; the "amused" VQGAN was
    trained on pixels in [0, 1]."""

    @property
    def channels(self) -> int:
        """Width C of a latent."""
        return self.embedding_dim or self.latent_channels

    @property
    def grid_size(self) -> int:
        """Side h = w of the latent grid."""
        return int(self.image_size // self.patch_size // 2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Settings of a GPT-NeoX stack. The defaults are Pythia-70M."""

    hidden_size: int = 512
    """Width of the residual stream."""
    num_layers: int = 6
    """Number of transformer blocks."""
    num_heads: int = 8
    """Number of attention heads."""
    intermediate_size: int = 2048
    """Width inside the MLPs."""
    rotary_fraction: float = 0.25
    """Share of each head's dimensions that get rotary positions, in [0, 1]."""
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn weights."""

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.hidden_size % self.num_heads:
            raise UserError(f"num_heads={self.num_heads} must divide hidden_size={self.hidden_size}")
        if not 0 <= self.rotary_fraction <= 1:
            raise UserError(f"rotary_fraction={self.rotary_fraction} is a share of a head; pass a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """A PatchGAN discriminator. The defaults see 70 x 70 pixels per logit."""

    width: int = 64
    """Channels after the first convolution; a multiple of 8. Later ones have up to 8 times as many."""
    layers: int = 3
    """Convolutions that halve the side. Images need a side of at least 3 * 2**layers pixels."""


@dataclass(frozen=True, kw_only=True)
class DoveConfig:
    """Settings of the whole tokenizer. The defaults are the paper's sizes."""

    autoencoder: Literal["vqgan", "patches"] = added("vqgan")
    """Way from pixels to latents and back: the VQGAN, as in the paper, or a linear embedding of patches and a few
    convolutions, both with the sizes of ``vqgan``."""
    vqgan: VQGANConfig = field(default_factory=VQGANConfig)
    generator: BackboneConfig = field(default_factory=BackboneConfig)
    decoder: BackboneConfig = field(default_factory=BackboneConfig)
    max_tokens: int = 256
    """Capacity K. The token decoder maps position i to grid position i, so K is the number of grid positions."""
    token_dim: int = 512
    """Width D of a token."""
    token_kind: Literal["point", "gaussian"] = added("point")
    """Tokens as vectors, or as means and variances of a Gaussian (Appendix D), of which inference takes the mean."""
    prior: Literal["none", "cosines"] = added("none")
    """Linear code beside the transformers: none, as in the paper, or the cosine transform of the whole picture."""
    prior_numbers: int = added(0)
    """Numbers P of the first token that hold cosine coefficients; its other D - P are learned. Further tokens hold D."""
    eos_head: Literal["binary", "vocab", "quality"] = "binary"
    """One EOS logit per position; the backbone's vocabulary, of which EOS is one word; or a prediction of the PSNR
    that the tokens so far reach, with EOS where it is nearest to ``quality_target``."""
    quality_target: float = 24.0
    """PSNR in dB at which the ``quality`` head ends a sequence."""
    quality_perceptual: str = added("none")
    """Network, or several joined by +, whose perceptual distance the ``quality`` head predicts beside the PSNR."""
    vocab_size: int = 50304
    """Number of words of the ``vocab`` head."""
    eos_token_id: int = 0
    """The word of the ``vocab`` head that ends a sequence."""

    def __post_init__(self) -> None:
        if self.autoencoder == "patches" and (len(self.vqgan.block_out_channels) > 1 or self.vqgan.patch_size % 2):
            raise UserError(
                "model.autoencoder=patches needs one width in model.vqgan.block_out_channels and an even "
                f"model.vqgan.patch_size; got {self.vqgan.block_out_channels} and {self.vqgan.patch_size}"
            )
        if self.eos_head == "vocab" and not 0 <= self.eos_token_id < self.vocab_size:
            raise UserError(
                f"model.eos_token_id={self.eos_token_id} is no word of a vocabulary of model.vocab_size={self.vocab_size}"
            )
        if self.prior == "none" and self.prior_numbers:
            raise UserError(f"model.prior_numbers={self.prior_numbers} needs a prior; pass --model.prior cosines, or 0")
        if self.prior != "none" and not 1 <= self.prior_numbers <= self.token_dim - 1:
            raise UserError(
                f"model.prior_numbers={self.prior_numbers} must leave some of the token's {self.token_dim} numbers to be "
                f"learned and take some; pass 1 to {self.token_dim - 1}"
            )

    @property
    def learned_numbers(self) -> int:
        """Numbers of a token that the generator computes, its last ones."""
        return self.token_dim - self.prior_numbers

    @property
    def learned_tokens(self) -> int:
        """Number of tokens at the head of a sequence that have learned numbers."""
        return self.max_tokens if self.prior == "none" else 1


def config_from_dict(values: Any, kind: type = DoveConfig, where: str = "", *, partial: bool = False) -> Any:
    """Build a config dataclass from the dictionary that ``dataclasses.asdict`` made of it.

    Args:
        values: settings by name; tables may be dataclasses already.
        kind: the dataclass.
        where: full name of the table, for messages.
        partial: what is missing takes its default, instead of those settings alone that came later.

    Raises:
        UserError: If settings are unknown, missing or of the wrong type; the message gives their names.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or 'the config'} is {values!r}; it must be a table of settings")
    prefix = f"{where}." if where else ""
    names = {field.name: field for field in fields(kind)}
    unknown = [f"{prefix}{name}" for name in values if name not in names]
    optional = {name for name, field in names.items() if partial or field.metadata.get("added")}
    missing = [prefix + name for name in names if name not in values and name not in optional]
    if unknown or missing:
        parts = [
            f"{label} {', '.join(found)}" for label, found in (("unknown", unknown), ("missing", missing)) if found
        ]
        raise UserError(f"settings {'; '.join(parts)}")
    hints = get_type_hints(kind)
    return kind(**{name: _convert(value, hints[name], prefix + name, partial) for name, value in values.items()})


def _convert(value: Any, hint: Any, where: str, partial: bool) -> Any:
    """Convert ``value`` to the type ``hint``; JSON has lists for tuples."""
    if isinstance(value, dict) and get_origin(hint) is UnionType:
        hint = next((option for option in get_args(hint) if is_dataclass(option)), hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else config_from_dict(value, hint, where, partial=partial)
    if isinstance(value, list | tuple) and get_origin(hint) is tuple:
        return tuple(_convert(item, get_args(hint)[0], where, partial) for item in value)
    if _fits(value, hint):
        return value
    raise UserError(f"setting {where} is {value!r}; it must be {hint.__name__ if isinstance(hint, type) else hint}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is UnionType:
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (int, str, bool, NoneType):
        return type(value) is hint
    return False
