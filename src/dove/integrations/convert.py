"""Conversion of a published DOVE ``.pth`` to a tokenizer.

The names inside such a file depend on the code that wrote it, so they are found by structure:

1. The two transformers are the two prefixes under which ``layers.0.attention.query_key_value.weight`` stands, the
   VQGAN is the prefix in front of ``encoder.conv_in.weight`` and ``decoder.conv_in.weight``.
2. Which transformer is which is told by words in their prefixes ("dec..." against "gen..." or "enc..."); where those
   don't tell, the first in the file is the generator. The choice is listed and can be made by hand.
3. Every other layer goes to the side whose prefix it shares, or whose words it has, and is matched there by shape.

A layer that fits twice is refused, never guessed; a mapping by name settles it. Written without a published file at hand and
tested on renamed tokenizers alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dove.checkpoint import load_weights
from dove.config import DoveConfig
from dove.errors import UserError
from dove.integrations.published import (
    NOT_NEEDED,
    Layer,
    Layout,
    PixelRange,
    find_layout,
    make_layers,
    paper_config,
    read_layers,
)
from dove.tokenizer import Dove

PARTS = ("vqgan.", "generator.transformer.", "token_decoder.transformer.")
"""Prefixes of the VQGAN and the transformers in the names of ``Dove``."""
ADDED = ("generator.grid_positions", "token_decoder.positions")
"""Vectors that are added to others: zeros where a file has none change nothing."""


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
    needs = make_layers([name for name in expected if not name.startswith(PARTS)], "generator.", "token_decoder.")
    matched = _match(needs, expected, layers, published, mapping or {})
    zeroed = [need.weight for need in needs if need.name not in matched]
    for need in (need for need in needs if need.name in matched):
        sources[need.weight] = matched[need.name].weight
        if need.bias is not None:
            bias = matched[need.name].bias
            sources |= {need.bias: bias} if bias else {}
            zeroed += [] if bias else [need.bias]
    weights = {name: published[source].float().reshape(expected[name].shape) for name, source in sources.items()}
    load_weights(model, weights | {name: torch.zeros_like(expected[name]) for name in zeroed}, "the published file")
    unused = (name for name in published.keys() - set(sources.values()) if not NOT_NEEDED.search(name))
    names = {ours: theirs.name for ours, theirs in matched.items()}
    return Conversion(
        model=model.eval(), layout=layout, matched=names, zeroed=tuple(zeroed), unused=tuple(sorted(unused))
    )


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


def _match(
    needs: list[Layer],
    expected: Mapping[str, Tensor],
    layers: list[Layer],
    published: Mapping[str, Tensor],
    mapping: Mapping[str, str],
) -> dict[str, Layer]:
    """Find the one layer of the file that fits each layer needed; those of ``ADDED`` may have none."""
    matched = _mapped(mapping, needs, expected, layers, published)
    free = [layer for layer in layers if layer not in matched.values()]
    for need in needs:
        if need.name in mapping:
            continue
        fitting = [layer for layer in free if _fits(need, expected, layer, published)]
        near = [layer for layer in fitting if layer.side == need.side] or [layer for layer in fitting if not layer.side]
        if len(near) > 1:
            raise _ambiguous(need.name, [layer.name for layer in near])
        if near:
            matched[need.name] = near[0]
        elif need.name not in ADDED:
            shape = tuple(expected[need.weight].shape)
            raise UserError(f"nothing in the published file fits {need.name} {shape}; pass --map {need.name}=NAME")
    for theirs in matched.values():
        ours = [name for name, layer in matched.items() if layer is theirs]
        if len(ours) > 1:
            raise UserError(f"{theirs.name} fits {' and '.join(ours)}; pass --map {ours[0]}=NAME for one of them")
    return matched


def _mapped(
    mapping: Mapping[str, str],
    needs: list[Layer],
    expected: Mapping[str, Tensor],
    layers: list[Layer],
    published: Mapping[str, Tensor],
) -> dict[str, Layer]:
    """Check the layers that the user mapped."""
    ours = {need.name: need for need in needs}
    theirs = {name: layer for layer in layers for name in (layer.weight, layer.name)}
    for name, other in mapping.items():
        if name not in ours:
            raise UserError(f"--map {name}: no such layer; there are {', '.join(ours)}")
        if other not in theirs:
            found = ", ".join(layer.name for layer in layers)
            raise UserError(f"--map to {other!r}: no such layer in the file; it has {found}")
        if not _fits(ours[name], expected, theirs[other], published):
            shapes = f"{tuple(published[theirs[other].weight].shape)}, not {tuple(expected[ours[name].weight].shape)}"
            raise UserError(f"--map {name}={other} does not fit: it is {shapes}")
    return {name: theirs[other] for name, other in mapping.items()}


def _fits(need: Layer, expected: Mapping[str, Tensor], layer: Layer, published: Mapping[str, Tensor]) -> bool:
    """Compare shapes, up to leading ones of a parameter or the trailing ones of a 1x1 convolution; no bias fits too."""
    ours, theirs = expected[need.weight].shape, published[layer.weight].shape
    if ours != theirs and (*[1] * (len(theirs) - len(ours)), *ours) != theirs and (*ours, 1, 1) != theirs:
        return False
    if layer.bias is None:
        return True
    return need.bias is not None and expected[need.bias].shape == published[layer.bias].shape


def _ambiguous(need: str, names: list[str]) -> UserError:
    return UserError(
        f"{len(names)} layers of the published file fit {need} ({', '.join(names)}); pass --map {need}=NAME"
    )
