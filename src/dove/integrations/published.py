"""Structure of a published ``.pth`` file: the large parts, the layers beside them, and their sizes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.errors import UserError

PixelRange = Literal["-1..1", "0..1"]
NOT_NEEDED = re.compile(r"(rotary_emb\.inv_freq|attention\.(masked_)?bias|embed_in\.weight)$")
"""Buffers of older GPT-NeoX code and the word embedding, which a tokenizer of images never reads."""
VQGAN_PARTS = (
    r"encoder\.(conv_in|down_blocks|mid_block|conv_norm_out|conv_out)"
    r"|decoder\.(conv_in|up_blocks|mid_block|conv_norm_out|conv_out)|quantize|quant_conv|post_quant_conv"
)
PYTHIA_HEADS = {128: 4, 512: 8, 768: 12}  # Attention heads by width (14M, 70M, 160M), which shapes do not show


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Prefixes, each empty or ending in a dot, and the reason for calling one transformer the generator."""

    generator: str
    decoder: str
    vqgan: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer, or a parameter that belongs to none, and the names of its tensors."""

    name: str
    side: str | None  # Either generator or decoder; None where the name does not tell
    weight: str
    bias: str | None


def find_layout(tensors: Mapping[str, Tensor], generator: str | None = None) -> Layout:
    """Find the prefixes of the two transformers and the VQGAN.

    Args:
        tensors: by name.
        generator: prefix of the transformer that is the generator; None to tell by words, else by order.

    Raises:
        UserError: if there are not exactly two and one, or ``generator`` is neither.
    """
    stacks = _prefixes(tensors, "layers.0.attention.query_key_value.weight")
    vqgans = [
        prefix
        for prefix in _prefixes(tensors, "encoder.conv_in.weight")
        if f"{prefix}decoder.conv_in.weight" in tensors
    ]
    for found, count, kind in ((stacks, 2, "GPT-NeoX stacks"), (vqgans, 1, "diffusers VQModels")):
        if len(found) != count:
            where = f" (under {', '.join(map(repr, found))}); pass --prefix to keep one copy" if found else ""
            raise UserError(f"the published file has {len(found)} {kind} instead of {count}{where}")
    first, second = stacks
    sides = (_side(first, apart_from=second), _side(second, apart_from=first))
    swapped = sides[0] != sides[1] and (sides[0] == "decoder" or sides[1] == "generator")
    reason = "it comes first in the file" if sides[0] == sides[1] else "the prefixes say so"
    if generator is not None:
        if generator not in stacks:
            raise UserError(f"--generator {generator!r} is no transformer of the file; pass {first!r} or {second!r}")
        swapped, reason = generator == second, "as asked for"
    one, other = (second, first) if swapped else (first, second)
    return Layout(generator=one, decoder=other, vqgan=vqgans[0], reason=reason)


def read_layers(tensors: Mapping[str, Tensor], layout: Layout) -> list[Layer]:
    """Read the layers beside the large parts, without tensors that are computed rather than learned."""
    large = re.compile(
        rf"({re.escape(layout.generator)}|{re.escape(layout.decoder)})(layers|final_layer_norm)\."
        rf"|{re.escape(layout.vqgan)}({VQGAN_PARTS})\."
    )
    names = [
        name
        for name, tensor in tensors.items()
        if not (large.match(name) or NOT_NEEDED.search(name) or _is_sinusoidal(tensor))
    ]
    return make_layers(names, layout.generator, layout.decoder)


def make_layers(names: list[str], generator: str, decoder: str) -> list[Layer]:
    """Group names of tensors into layers, each on the side whose prefix it shares, or else whose words it has."""
    layers = []
    for name in names:
        layer, _, leaf = name.rpartition(".")
        if leaf == "bias" and f"{layer}.weight" in names:
            continue
        near = _shared(name, generator) - _shared(name, decoder)
        side = ("generator" if near > 0 else "decoder") if near else _side(name)
        bias = f"{layer}.bias" if leaf == "weight" and f"{layer}.bias" in names else None
        layers.append(Layer(name=layer if leaf == "weight" else name, side=side, weight=name, bias=bias))
    return layers


def read_config(
    tensors: Mapping[str, Tensor], layout: Layout, layers: list[Layer], pixel_range: PixelRange
) -> DoveConfig:
    """Read sizes from the shapes; those that shapes do not show are the paper's: 16 x 16 latents, norm groups, heads."""
    try:
        generator = _read_backbone(tensors, layout.generator)
        decoder = _read_backbone(tensors, layout.decoder)
        vqgan = _read_vqgan(tensors, layout.vqgan, pixel_range)
    except KeyError as error:
        raise UserError(f"the published file has no {error.args[0]}; it is incomplete or no DOVE") from error
    near = [layer for layer in layers if layer.side != "decoder"]
    vocabulary = [tensors[layer.weight] for layer in near if layer.name.endswith(("embed_out", "lm_head"))]
    return DoveConfig(
        vqgan=vqgan,
        generator=generator,
        decoder=decoder,
        token_dim=_read_token_dim(tensors, layers, generator.hidden_size, decoder.hidden_size, vqgan.channels),
        eos_head="vocab" if vocabulary else "binary",
        vocab_size=len(vocabulary[0]) if vocabulary else DoveConfig.vocab_size,
    )


def _read_token_dim(
    tensors: Mapping[str, Tensor], layers: list[Layer], generator_width: int, decoder_width: int, channels: int
) -> int:
    """Find the width that a layer on the generator's side puts out and one on the decoder's side takes in."""
    shapes = [(layer.side, *tensors[layer.weight].shape) for layer in layers if tensors[layer.weight].ndim == 2]
    out = {rows for side, rows, columns in shapes if side != "decoder" and columns == generator_width}
    into = {columns for side, rows, columns in shapes if side != "generator" and rows == decoder_width}
    widths = out & into
    if len(widths) > 1:
        widths -= {channels}  # the projections of the latents, where no name tells their side
    if len(widths) != 1:
        found = ", ".join(map(str, sorted(widths))) or "none"
        raise UserError(f"the width of a token is not clear from the published file (found: {found}); pass --config")
    return int(widths.pop())


def _read_backbone(tensors: Mapping[str, Tensor], prefix: str) -> BackboneConfig:
    inner, width = tensors[f"{prefix}layers.0.mlp.dense_h_to_4h.weight"].shape
    if width not in PYTHIA_HEADS:
        raise UserError(f"the transformer {prefix!r} is {width} wide, which is no Pythia known here; pass --config")
    return BackboneConfig(
        hidden_size=width,
        num_layers=_count(tensors, prefix, r"layers\.(\d+)\.input_layernorm\.weight"),
        num_heads=PYTHIA_HEADS[width],
        intermediate_size=inner,
    )


def _read_vqgan(tensors: Mapping[str, Tensor], prefix: str, pixel_range: PixelRange) -> VQGANConfig:
    levels = _count(tensors, prefix, r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv2\.weight")
    codebook_size, channels = tensors[f"{prefix}quantize.embedding.weight"].shape
    latent_channels = len(tensors[f"{prefix}encoder.conv_out.weight"])
    patch_size = math.isqrt(tensors[f"{prefix}encoder.conv_in.weight"].shape[1] // 3)
    return VQGANConfig(
        pixel_range=pixel_range,
        image_size=math.isqrt(DoveConfig.max_tokens) * patch_size * 2 ** (levels - 1),
        patch_size=patch_size,
        block_out_channels=tuple(
            len(tensors[f"{prefix}encoder.down_blocks.{level}.resnets.0.conv2.weight"]) for level in range(levels)
        ),
        layers_per_block=_count(tensors, prefix, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.conv2\.weight"),
        latent_channels=latent_channels,
        embedding_dim=None if channels == latent_channels else channels,
        codebook_size=codebook_size,
        mid_attention=any(name.startswith(f"{prefix}encoder.mid_block.attentions.") for name in tensors),
    )


def _prefixes(names: Mapping[str, Tensor], suffix: str) -> list[str]:
    matches = (re.fullmatch(r"((?:.*\.)?)" + re.escape(suffix), name) for name in names)
    return [match[1] for match in matches if match]


def _count(names: Mapping[str, Tensor], prefix: str, pattern: str) -> int:
    return sum(bool(re.fullmatch(re.escape(prefix) + pattern, name)) for name in names)


def _side(name: str, apart_from: str = "") -> str | None:
    """Guess the side from the words of a name, except those it shares with another."""
    shared = set(re.split(r"[._]", apart_from.lower()))
    words = [word for word in re.split(r"[._]", name.lower()) if word not in shared]
    if any(word.startswith(("dec", "detok")) for word in words):
        return "decoder"
    return "generator" if any(word.startswith(("gen", "enc")) for word in words) else None


def _shared(name: str, prefix: str) -> int:
    """Count the leading parts of a name that are those of a prefix."""
    count = 0
    for part, other in zip(name.split("."), prefix.split("."), strict=False):
        if part != other:
            break
        count += 1
    return count


def _is_sinusoidal(tensor: Tensor) -> bool:
    """Check that rows hold as many sines as cosines of the same angles: their squares then sum to half the width."""
    table = tensor.squeeze()
    if table.ndim != 2 or not table.is_floating_point():
        return False
    energy = table.float().square().sum(1)
    return bool((energy - table.shape[1] / 2).abs().max() < 1e-2 * table.shape[1])
