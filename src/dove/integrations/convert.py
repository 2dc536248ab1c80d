"""Conversion of a published DOVE ``.pth`` to a tokenizer.

The names inside such a file depend on the code that wrote it. A table of their beginnings says which weights of ``Dove`` they
are; what it does not name is looked for under our own name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.tokenizer import Dove

PixelRange = Literal["-1..1", "0..1"]
NOT_NEEDED = re.compile(r"(rotary_emb\.inv_freq|attention\.(masked_)?bias|embed_in\.weight)$")
"""Buffers of older GPT-NeoX code and the word embedding, which a tokenizer of images never reads."""
ADDED = re.compile(r"(generator|token_decoder)\.(\w+_projection\.bias|(grid_)?positions)")
"""Vectors that are added to others: zeros where a file has none change nothing."""
EOS_HEAD = "generator.eos_head.projection.weight"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted tokenizer and the names that match nothing."""

    model: Dove
    zeroed: tuple[str, ...]  # Weights of ``Dove`` that the file lacks and that are set to zero, which changes nothing
    unused: tuple[str, ...]  # Names in the file that are not used


def convert(
    published: Mapping[str, Tensor],
    config: DoveConfig | None = None,
    beginnings: Mapping[str, str] | None = None,
    pixel_range: PixelRange = "0..1",
) -> Conversion:
    """Make a tokenizer of tensors with other names.

    Args:
        published: tensors by name. Sides of length 1 may differ: a linear layer may be stored as a convolution of 1 x 1.
        config: sizes; None for the paper's.
        beginnings: beginnings of the names in ``Dove`` and in the file, such as "vqgan." and "tokenizer.vq."; of several that
            fit, the longest counts.
        pixel_range: of the VQGAN's pixels, without ``config``: no shape tells it, and the paper's VQGAN has [0, 1].

    Raises:
        UserError: if a weight is not there or of another shape; the message names both sides.
    """
    beginnings = beginnings or {}
    model = Dove(config or paper_config(published, beginnings, pixel_range))
    expected = model.state_dict()
    idle = [ours for ours in beginnings if not any(name.startswith(ours) for name in expected)]
    if idle:
        raise UserError(f"--map {idle[0]}: no weight of the tokenizer begins so; it has {_listed(expected, expected)}")
    sources = {name: their_name(name, beginnings) for name in expected}
    zeroed = tuple(name for name in expected if sources[name] not in published and ADDED.fullmatch(name))
    used = {name: source for name, source in sources.items() if name not in zeroed}
    unused = sorted(name for name in published.keys() - set(used.values()) if not NOT_NEEDED.search(name))
    missing = [name for name, source in used.items() if source not in published]
    if missing:
        raise UserError(
            f"{len(missing)} weights are not in the published file: {_listed(missing, expected)}. "
            f"Not used of it: {_listed(unused, published) or 'nothing'}. "
            "Pass --prefix, or --map OURS=THEIRS, beginnings of these names"
        )
    for name, source in used.items():
        if _without_ones(expected[name]) != _without_ones(published[source]):
            ours, theirs = (tuple(tensor.shape) for tensor in (expected[name], published[source]))
            raise UserError(f"{source} of the published file is {theirs}, {name} is {ours}; pass --config or --map")
    weights = {name: published[source].float().reshape(expected[name].shape) for name, source in used.items()}
    model.load_state_dict(weights | {name: torch.zeros_like(expected[name]) for name in zeroed})
    return Conversion(model=model.eval(), zeroed=zeroed, unused=tuple(unused))


def their_name(name: str, beginnings: Mapping[str, str]) -> str:
    """Give the name that a weight of ``Dove`` has in the file."""
    ours = max((ours for ours in beginnings if name.startswith(ours)), key=len, default="")
    return beginnings.get(ours, "") + name.removeprefix(ours)


def paper_config(tensors: Mapping[str, Tensor], beginnings: Mapping[str, str], pixel_range: PixelRange) -> DoveConfig:
    """Give the paper's sizes; an EOS head with a row for each word of a vocabulary is a language model's output layer."""
    vqgan = VQGANConfig(pixel_range=pixel_range)
    head = tensors.get(their_name(EOS_HEAD, beginnings))
    if head is None or len(head) == 1:
        return DoveConfig(vqgan=vqgan)
    return DoveConfig(vqgan=vqgan, eos_head="vocab", vocab_size=len(head))


def _listed(names: Iterable[str], tensors: Mapping[str, Tensor]) -> str:
    """List tensors with their shapes; those of numbered layers are listed as one."""
    listed = (re.sub(r"\.\d+\..*", ".*", f"{name} {tuple(tensors[name].shape)}") for name in names)
    return "; ".join(dict.fromkeys(listed))


def _without_ones(tensor: Tensor) -> list[int]:
    return [side for side in tensor.shape if side != 1]
