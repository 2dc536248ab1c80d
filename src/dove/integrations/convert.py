"""Conversion of a published DOVE ``.pth`` to a tokenizer.

The names inside such a file depend on the code that wrote it, so they are found by structure:

1. The two transformers are the two prefixes under which ``layers.0.attention.query_key_value.weight`` stands, the
   VQGAN is the prefix in front of ``encoder.conv_in.weight`` and ``decoder.conv_in.weight``.
2. Which transformer is which is told by words in their prefixes ("dec..." against "gen..." or "enc..."); where those
   don't tell, the first in the file is the generator. The choice is listed and can be made by hand.
3. Every other layer goes to the side whose words it has, and is matched there by shape.

A layer that fits twice is refused, never guessed; a mapping by name settles it. Written without a published file at hand and
tested on renamed tokenizers alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dove.checkpoint import load_weights
from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.tokenizer import Dove

PixelRange = Literal["-1..1", "0..1"]
NOT_NEEDED = re.compile(r"(rotary_emb\.inv_freq|attention\.(masked_)?bias|embed_in\.weight)$")
"""Buffers of older GPT-NeoX code and the word embedding, which a tokenizer of images never reads."""
VQGAN_PARTS = (
    r"encoder\.(conv_in|down_blocks|mid_block|conv_norm_out|conv_out)"
    r"|decoder\.(conv_in|up_blocks|mid_block|conv_norm_out|conv_out)|quantize|quant_conv|post_quant_conv"
)
PARTS = ("vqgan.", "generator.transformer.", "token_decoder.transformer.")
"""Prefixes of the VQGAN and the transformers in the names of ``Dove``."""
ADDED = ("generator.grid_positions", "token_decoder.positions")
"""Vectors that are added to others: zeros where a file has none change nothing."""


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
    shapes: tuple[list[int], list[int] | None]  # Of weight and bias, without ones; None without a bias


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted tokenizer and the use of every name."""

    model: Dove
    layout: Layout
    matched: dict[str, str]  # Layers of ``Dove`` outside the transformers and the VQGAN, and the file's names for them
    zeroed: tuple[str, ...]  # Weights of ``Dove`` that the file lacks and that are set to zero, which changes nothing
    unused: tuple[str, ...]  # Names in the file that are not used


def convert(
    published: Mapping[str, Tensor],
    config: DoveConfig | None = None,
    mapping: Mapping[str, str] | None = None,
    generator: str | None = None,
    pixel_range: PixelRange = "0..1",
) -> Conversion:
    """Find a tokenizer in tensors of unknown names.

    Args:
        published: tensors by name.
        config: sizes; None for the paper's.
        mapping: layers of ``Dove`` (such as "generator.token_projection") and the file's, where structure leaves them open.
        generator: prefix of the transformer that is the generator; None to tell by the rule.
        pixel_range: of the VQGAN's pixels, without ``config``: no shape tells it, and the paper's VQGAN has [0, 1].

    Raises:
        UserError: if a part is not there, or more than one fits.
    """
    layout = find_layout(published, generator)
    layers = read_layers(published, layout)
    model = Dove(config or paper_config(published, layers, pixel_range))
    expected = model.state_dict()
    sources = _large_parts(expected, published, layout)
    needs = make_layers({name: tensor for name, tensor in expected.items() if not name.startswith(PARTS)})
    matched = _match(needs, layers, mapping or {})
    for need in needs:
        theirs = matched.get(need.name)
        pairs = ((need.weight, theirs.weight), (need.bias, theirs.bias)) if theirs else ()
        sources |= {ours: name for ours, name in pairs if ours and name}
    zeroed = [name for need in needs for name in (need.weight, need.bias) if name and name not in sources]
    weights = {name: published[source].float().reshape(expected[name].shape) for name, source in sources.items()}
    load_weights(model, weights | {name: torch.zeros_like(expected[name]) for name in zeroed}, "the published file")
    unused = (name for name in published.keys() - set(sources.values()) if not NOT_NEEDED.search(name))
    names = {ours: theirs.name for ours, theirs in matched.items()}
    return Conversion(
        model=model.eval(), layout=layout, matched=names, zeroed=tuple(zeroed), unused=tuple(sorted(unused))
    )


def find_layout(tensors: Mapping[str, Tensor], generator: str | None = None) -> Layout:
    """Find the prefixes of the two transformers and the VQGAN."""
    stacks = _prefixes(tensors, "layers.0.attention.query_key_value.weight")
    vqgans = _prefixes(tensors, "encoder.conv_in.weight")
    vqgans = [prefix for prefix in vqgans if f"{prefix}decoder.conv_in.weight" in tensors]
    for found, count, kind in ((stacks, 2, "GPT-NeoX stacks"), (vqgans, 1, "diffusers VQModels")):
        if len(found) != count:
            where = f" (under {', '.join(map(repr, found))}); pass --prefix to keep one copy" if found else ""
            raise UserError(f"the published file has {len(found)} {kind} instead of {count}{where}")
    if generator is not None and generator not in stacks:
        raise UserError(
            f"--generator {generator!r} is no transformer of the file; pass {' or '.join(map(repr, stacks))}"
        )
    first, second = map(_side, stacks)
    reason = "the prefixes say so" if first != second else "it comes first in the file"
    reason = reason if generator is None else "as asked for"
    swapped = first != second and (first == "decoder" or second == "generator")
    if generator == stacks[1] or (generator is None and swapped):
        stacks.reverse()
    return Layout(generator=stacks[0], decoder=stacks[1], vqgan=vqgans[0], reason=reason)


def read_layers(tensors: Mapping[str, Tensor], layout: Layout) -> list[Layer]:
    """Read the layers beside the large parts."""
    large = re.compile(
        rf"({re.escape(layout.generator)}|{re.escape(layout.decoder)})(layers|final_layer_norm)\."
        rf"|{re.escape(layout.vqgan)}({VQGAN_PARTS})\."
    )
    beside = {name: tensor for name, tensor in tensors.items() if not (large.match(name) or NOT_NEEDED.search(name))}
    return make_layers(beside)


def make_layers(tensors: Mapping[str, Tensor]) -> list[Layer]:
    """Group tensors into layers."""
    layers = []
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "bias" and f"{layer}.weight" in tensors:
            continue
        bias = f"{layer}.bias" if leaf == "weight" and f"{layer}.bias" in tensors else None
        shapes = _without_ones(tensor), _without_ones(tensors[bias]) if bias else None
        name_of_layer = layer if leaf == "weight" else name
        layers.append(Layer(name=name_of_layer, side=_side(name), weight=name, bias=bias, shapes=shapes))
    return layers


def paper_config(tensors: Mapping[str, Tensor], layers: list[Layer], pixel_range: PixelRange) -> DoveConfig:
    """Give the paper's sizes; an output layer of a language model tells the kind of the EOS head."""
    near = [layer for layer in layers if layer.side != "decoder" and layer.name.endswith(("embed_out", "lm_head"))]
    vqgan = VQGANConfig(pixel_range=pixel_range)
    if not near:
        return DoveConfig(vqgan=vqgan)
    return DoveConfig(vqgan=vqgan, eos_head="vocab", vocab_size=len(tensors[near[0].weight]))


def _large_parts(expected: Mapping[str, Tensor], published: Mapping[str, Tensor], layout: Layout) -> dict[str, str]:
    """Pair names inside the transformers and the VQGAN with the file's, without those that it lacks."""
    prefixes = dict(zip(PARTS, (layout.vqgan, layout.generator, layout.decoder), strict=True))
    sources = {
        name: prefix + name.removeprefix(part)
        for part, prefix in prefixes.items()
        for name in expected
        if name.startswith(part)
    }
    wrong = [
        f"{source} {tuple(published[source].shape)} for {tuple(expected[name].shape)}"
        for name, source in sources.items()
        if source in published and published[source].shape != expected[name].shape
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} tensors of the published file have other sizes than configured: {wrong[0]}; pass --config"
        )
    return {name: source for name, source in sources.items() if source in published}


def _match(needs: list[Layer], layers: list[Layer], mapping: Mapping[str, str]) -> dict[str, Layer]:
    """Find the one layer of the file that fits each layer needed; those of ``ADDED`` may have none."""
    matched = _mapped(needs, layers, mapping)
    free = [layer for layer in layers if layer not in matched.values()]
    for need in needs:
        if need.name in mapping:
            continue
        fitting = [layer for layer in free if _fits(need, layer)]
        near = [layer for layer in fitting if layer.side == need.side] or [layer for layer in fitting if not layer.side]
        if len(near) > 1:
            names = ", ".join(layer.name for layer in near)
            raise UserError(
                f"{len(near)} layers of the published file fit {need.name} ({names}); pass --map {need.name}=NAME"
            )
        if near:
            matched[need.name] = near[0]
        elif need.name not in ADDED:
            raise UserError(
                f"nothing in the published file fits {need.name} {need.shapes[0]}; pass --map {need.name}=NAME"
            )
    for theirs in matched.values():
        ours = [name for name, layer in matched.items() if layer is theirs]
        if len(ours) > 1:
            raise UserError(f"{theirs.name} fits {' and '.join(ours)}; pass --map {ours[0]}=NAME for one of them")
    return matched


def _mapped(needs: list[Layer], layers: list[Layer], mapping: Mapping[str, str]) -> dict[str, Layer]:
    """Check the layers that the user mapped."""
    ours = {need.name: need for need in needs}
    theirs = {name: layer for layer in layers for name in (layer.weight, layer.name)}
    for name, other in mapping.items():
        if name not in ours:
            raise UserError(f"--map {name}: no such layer; there are {', '.join(ours)}")
        if other not in theirs:
            found = ", ".join(layer.name for layer in layers)
            raise UserError(f"--map to {other!r}: no such layer in the file; it has {found}")
        if not _fits(ours[name], theirs[other]):
            shapes = f"{theirs[other].shapes[0]}, not {ours[name].shapes[0]}"
            raise UserError(f"--map {name}={other} does not fit: it is {shapes}")
    return {name: theirs[other] for name, other in mapping.items()}


def _prefixes(names: Mapping[str, Tensor], suffix: str) -> list[str]:
    matches = (re.fullmatch(r"((?:.*\.)?)" + re.escape(suffix), name) for name in names)
    return [match[1] for match in matches if match]


def _side(name: str) -> str | None:
    """Guess the side from the words of a name."""
    words = re.split(r"[._]", name.lower())
    if any(word.startswith(("dec", "detok")) for word in words):
        return "decoder"
    return "generator" if any(word.startswith(("gen", "enc")) for word in words) else None


def _fits(need: Layer, layer: Layer) -> bool:
    """Compare shapes; a layer without a bias fits, too."""
    return need.shapes[0] == layer.shapes[0] and layer.shapes[1] in (None, need.shapes[1])


def _without_ones(tensor: Tensor) -> list[int]:
    return [side for side in tensor.shape if side != 1]
