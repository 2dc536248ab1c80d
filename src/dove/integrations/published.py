"""Structure of a published ``.pth`` file: the large parts and the layers beside them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError

PixelRange = Literal["-1..1", "0..1"]
NOT_NEEDED = re.compile(r"(rotary_emb\.inv_freq|attention\.(masked_)?bias|embed_in\.weight)$")
"""Buffers of older GPT-NeoX code and the word embedding, which a tokenizer of images never reads."""
VQGAN_PARTS = (
    r"encoder\.(conv_in|down_blocks|mid_block|conv_norm_out|conv_out)"
    r"|decoder\.(conv_in|up_blocks|mid_block|conv_norm_out|conv_out)|quantize|quant_conv|post_quant_conv"
)


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
    """Find the prefixes of the two transformers and the VQGAN."""
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


def paper_config(tensors: Mapping[str, Tensor], layers: list[Layer], pixel_range: PixelRange) -> DoveConfig:
    """Give the paper's sizes; an output layer of a language model tells the kind of the EOS head."""
    near = [layer for layer in layers if layer.side != "decoder" and layer.name.endswith(("embed_out", "lm_head"))]
    vqgan = VQGANConfig(pixel_range=pixel_range)
    if not near:
        return DoveConfig(vqgan=vqgan)
    return DoveConfig(vqgan=vqgan, eos_head="vocab", vocab_size=len(tensors[near[0].weight]))


def _prefixes(names: Mapping[str, Tensor], suffix: str) -> list[str]:
    matches = (re.fullmatch(r"((?:.*\.)?)" + re.escape(suffix), name) for name in names)
    return [match[1] for match in matches if match]


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
