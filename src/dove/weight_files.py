"""Weights of a checkpoint folder: model.safetensors, or shards with model.safetensors.index.json."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dove.data.json_files import read_json
from dove.errors import UserError

STEM = "model"
WEIGHTS_FILE = f"{STEM}.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
"""Table whose ``weight_map`` says which shard holds a tensor, as transformers writes large models."""
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module"}
"""Parts of parameter names that DDP, torch.compile and FSDP add."""


def weight_files(folder: Path, stem: str = STEM) -> list[Path]:
    """List the file with the weights, or the shards in the order of their names.

    Raises:
        UserError: If one is missing, or the index is damaged or leads out of the folder.
    """
    name = f"{stem}.safetensors"
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        pickles = sorted(found.name for found in folder.iterdir() if found.suffix in PICKLE_SUFFIXES)
        advice = f"{pickles[0]} is a pickle: use `dove convert`" if pickles else "pass a complete checkpoint folder"
        raise UserError(f"{folder} has no {name}; {advice}")
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{index} has no weight_map from tensors to files of its folder; copy or download it again")
    files = [folder / name for name in sorted(set(names))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of {len(files)} weight files: {', '.join(missing[:3])}")
    return files


def read_weights(folder: Path, stem: str = STEM) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU: without the prefixes of wrappers, and finite.

    Raises:
        UserError: If a file is missing or damaged, or a tensor holds NaN or infinity; the message names it.
    """
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder, stem):
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); copy or download it again") from error
    check_finite(folder, weights)
    return strip_wrappers(weights)


def check_finite(source: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite.

    Raises:
        UserError: If a tensor holds NaN or infinity; the message names it.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"{source}: {name} holds NaN or infinity in {count} of {tensor.numel()} places; "
                "copy it again, or take an earlier checkpoint of its training"
            )


def strip_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the names of the bare model, without the ``_WRAPPERS``."""
    bare = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in weights}
    if len(bare) < len(weights):  # a tensor with and without prefix: loading reports it
        return dict(weights)
    return {name: weights[wrapped] for name, wrapped in bare.items()}


def read_published(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors of a ``.pth`` or safetensors file by dotted name, without the names that wrappers add.

    Args:
        path: file of weights. A pickle is read with ``weights_only=True``: tensors and plain containers, no code.
        prefix: keep only names that start with it, and drop it from them.

    Raises:
        UserError: If the file is missing, damaged, holds other objects than tensors, or nothing under the prefix.
    """
    try:
        pickled = path.suffix != ".safetensors"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on the pickle's version before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True) if pickled else load_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, SafetensorError) as error:
        reason = re.search(r"Unsupported \w+: \S+ \S+", str(error))
        detail = f"holds more than tensors ({reason[0]})" if reason else "is damaged or no PyTorch file"
        raise UserError(f"{path} {detail}; pass a file of tensors, which is all that gets loaded") from error
    tensors = strip_wrappers(dict(_flatten(content)))
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not kept:
        heads = ", ".join(sorted({name.split(".")[0] for name in tensors})[:8]) or "nothing"
        raise UserError(f"{path} has no tensor under the prefix {prefix!r}; its names start with {heads}")
    return kept


def _flatten(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{name}.{key}" if name else str(key))
