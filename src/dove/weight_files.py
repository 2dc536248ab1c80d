"""Weights of a checkpoint folder: model.safetensors, or shards with model.safetensors.index.json."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dove.data.json_files import read_json
from dove.errors import UserError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Table whose ``weight_map`` says which shard holds a tensor, as transformers writes large models."""
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_DISTRIBUTED = "module."


def weight_files(folder: Path) -> list[Path]:
    """The file with the weights, or the shards in the order of their names.

    Raises:
        UserError: if one is missing, or the index is damaged or leads out of the folder.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        pickles = sorted(found.name for found in folder.iterdir() if found.suffix in PICKLE_SUFFIXES)
        advice = f"{pickles[0]} is a pickle: use `dove convert`" if pickles else "pass a complete checkpoint folder"
        raise UserError(f"{folder} has no {WEIGHTS_FILE}; {advice}")
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(_is_plain_name(name) for name in shards.values()):
        raise UserError(f"{index} has no weight_map from tensors to files of its folder; copy or download it again")
    files = [folder / name for name in sorted(set(shards.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of {len(files)} weight files: {', '.join(missing[:3])}")
    return files


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: without the prefixes of wrappers, and finite.

    Raises:
        UserError: naming the file that is missing or damaged, or the tensor that holds NaN or infinity.
    """
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); copy or download it again") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"{folder}: {name} holds NaN or infinity in {count} of {tensor.numel()} places; "
                "take an earlier checkpoint, the training broke down before this one"
            )
    return strip_wrappers(weights)


def strip_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under the names of the bare model: without ``_orig_mod.`` (torch.compile) and ``module.`` (DDP)."""
    names = {name: _COMPILED.sub(r"\1", name) for name in weights}
    while names and all(name.startswith(_DISTRIBUTED) for name in names.values()):
        names = {name: _COMPILED.sub(r"\1", bare.removeprefix(_DISTRIBUTED)) for name, bare in names.items()}
    if len(set(names.values())) < len(names):  # a tensor with and without prefix: whoever loads it is to say so
        return dict(weights)
    return {names[name]: tensor for name, tensor in weights.items()}


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name
