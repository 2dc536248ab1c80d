"""Checkpoint folders: config.json, model.safetensors and a README.md."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from safetensors.torch import save
from torch import Tensor, nn
from yaml import YAMLError

from dove.config import DoveConfig, config_from_dict
from dove.data.json_files import read_json
from dove.errors import UserError, writing
from dove.weight_files import INDEX_FILE, PICKLE_SUFFIXES, WEIGHTS_FILE, read_weights, weight_files

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
HUB_FILES = (CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, "model-*.safetensors", CARD_FILE, "*/*.json", "*/*.safetensors")
"""Patterns of the files of a checkpoint on the hub."""
OLD_SETTINGS = {"token_basis", "token_decoder", "linear_shortcut"}
"""Settings of checkpoints written before the cosine prior, whose weights fit no model of this version."""
TYPE_KEY = "model_type"
"""Key of the model type in config.json; a file without it is read as the type that the caller expects."""


def shipped_checkpoints() -> dict[str, Path]:
    """Find the checkpoints inside the package, by name."""
    weights = Path(str(files("dove") / "weights"))
    return {folder.name: folder for folder in sorted(weights.glob("*/")) if (folder / CONFIG_FILE).is_file()}


def resolve_checkpoint(name: str | Path, **hub_options: Any) -> Path:
    """Find the folder of a path, a shipped name or a hub id (downloaded), tried in this order.

    Raises:
        UserError: If it is none of them, a pickle, or a hub that cannot be reached.
    """
    if not isinstance(name, str | Path):
        raise UserError(
            f"checkpoint {name!r} is of type {type(name).__name__}; pass a folder, a shipped name or a hub id"
        )
    path = Path(name).expanduser()
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UserError(
            f"{name} is a pickle, which can run code when loaded; turn it into a checkpoint with `dove convert`"
        )
    # Path.is_dir raises where a name is too long for a file.
    if os.path.isdir(path):  # noqa: PTH112
        return path
    if os.path.isfile(path):  # noqa: PTH113
        raise UserError(f"{name} is a file; pass the checkpoint folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    shipped = shipped_checkpoints()
    if str(name) in shipped:
        return shipped[str(name)]
    known = ", ".join(shipped) or "none"
    if isinstance(name, Path) or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UserError(
            f"no checkpoint {str(name)!r}: no such folder or shipped name (shipped: {known}) or hub id (owner/name)"
        )
    return download(str(name), HUB_FILES, f"use a shipped one ({known})", **hub_options)


def checkpoint_sha256(folder: Path) -> str:
    """Compute the SHA-256 of a checkpoint's config and weights, one after the other."""
    digest = hashlib.sha256()
    for path in (folder / CONFIG_FILE, *weight_files(folder)):
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)  # goes on with the digest of the files before
        except OSError as error:
            raise UserError(f"{folder} has no readable {path.name}; pass a complete checkpoint folder") from error
    return digest.hexdigest()


def load_checkpoint(folder: Path, kind: type = DoveConfig) -> tuple[Any, dict[str, Tensor]]:
    """Load settings, as the dataclass ``kind``, and weights of a checkpoint folder; floats as fp32, on the CPU.

    Raises:
        UserError: If a file is missing or damaged, naming it, or a weight is not finite.
    """
    file = _config_file(folder)
    weight_files(folder)  # a missing file is reported before a wrong setting in the config
    config = read_config(file, kind)
    weights = read_weights(folder)
    return config, {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def read_config(file: Path, kind: type = DoveConfig) -> Any:
    """Read settings of a config.json, as the dataclass ``kind``.

    Raises:
        UserError: If it cannot be read, is no JSON, or has unknown, missing or wrong settings, by name.
    """
    values = read_json(file)
    if isinstance(values, dict):
        _require_type(file, values.pop(TYPE_KEY, model_type(kind)), model_type(kind))
        if old := sorted(OLD_SETTINGS & set(values)):
            raise UserError(
                f"{file} is of an older layout (it has {', '.join(old)}), which this version cannot load; train the model "
                "anew, or load it with the version that wrote it, commit 5c2cfab of this repository"
            )
    try:
        return config_from_dict(values, kind)
    except UserError as error:
        raise UserError(f"{file} is not a usable config: {error}") from error


def _require_type(file: Path, found: str, wanted: str) -> None:
    if found != wanted:
        shipped = [name for name, place in shipped_checkpoints().items() if read_model_type(place) == wanted]
        remedy = f"pass {', '.join(shipped) or 'a checkpoint'} or another of that type"
        others = "" if wanted == "VLM" else "; `dove reconstruct` and `dove evaluate` take tokenizers of every type"
        raise UserError(f"{file} describes a model of type {found}, not {wanted}; {remedy}{others}")


def model_type(kind: type) -> str:
    """Derive the model type in config.json from a settings class: DoveConfig describes a "Dove"."""
    return kind.__name__.removesuffix("Config")


def read_model_type(folder: Path) -> str:
    """Read the model type of a checkpoint folder; "Dove" where the config has none."""
    values = read_json(_config_file(folder))
    return str(values.get(TYPE_KEY)) if isinstance(values, dict) and TYPE_KEY in values else model_type(DoveConfig)


def _config_file(folder: Path) -> Path:
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder} has no {CONFIG_FILE}; pass a complete checkpoint folder")
    return folder / CONFIG_FILE


def read_card(folder: Path) -> dict[str, Any]:
    """Read the front matter of a checkpoint's card; empty where there is none that can be read: a card is free text."""
    card = folder / CARD_FILE
    try:
        return (metadata_load(card) if card.is_file() else None) or {}
    except (OSError, ValueError, YAMLError):
        return {}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy weights into a model that must have exactly these.

    Raises:
        UserError: If weights are missing, left over, of another shape, or floats for integers; the message gives the first.
    """
    expected = model.state_dict()
    pairs = [(name, weights[name], tensor) for name, tensor in expected.items() if name in weights]
    problems = {
        "missing": [name for name in expected if name not in weights],
        "unknown": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(found.shape)} for {tuple(wanted.shape)}"
            for name, found, wanted in pairs
            if found.shape != wanted.shape
        ],
        # Indices above 2048 are wrong once they were fp16, and 8-bit integers mean nothing without their scales.
        "of another type": [
            f"{name} {_type_name(found)} for {_type_name(wanted)}"
            for name, found, wanted in pairs
            if found.is_floating_point() != wanted.is_floating_point()
        ],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
            for kind, names in problems.items()
            if names
        )
        raise UserError(f"the weights in {source} don't fit the configured model: {found}")
    model.load_state_dict(dict(weights))


def save_checkpoint(
    folder: str | Path,
    config: Any,
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    card: str | None = None,
) -> None:
    """Write a checkpoint folder. Either all its files are new afterwards or, on any error, all are the old ones.

    Args:
        folder: checkpoint folder, made where missing.
        config: settings of the model, a dataclass.
        weights: state dict of the model.
        dtype: type in which floats are stored; None for their own.
        card: text of the README.md; an existing one is kept.

    Raises:
        UserError: If the folder cannot be written, such as for lack of space.
    """
    folder = Path(folder)
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in weights.items()
    }
    contents = {
        CONFIG_FILE: (json.dumps({TYPE_KEY: model_type(type(config))} | asdict(config), indent=2) + "\n").encode(),
        WEIGHTS_FILE: save(stored, metadata={"format": "pt"}),
    }
    if card is not None and not (folder / CARD_FILE).exists():
        contents[CARD_FILE] = card.encode()
    write_files(folder, contents)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files so that a failure leaves the old ones whole: first all under temporary names, then renamed.

    Raises:
        UserError: If the folder cannot be made or written.
    """
    with writing(folder if len(contents) > 1 else folder / next(iter(contents))):
        folder.mkdir(parents=True, exist_ok=True)
        _replace_files(folder, contents)


def _replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    written: dict[Path, Path] = {}
    try:
        for name, content in contents.items():
            # The end of a long name is left out: with what mkstemp appends, it would be too long for the file system.
            descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:50]}.")
            written[Path(temporary)] = folder / name
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)  # mkstemp gives the owner alone access
        for temporary_file, target in written.items():
            temporary_file.replace(target)
    finally:
        for temporary_file in written:
            temporary_file.unlink(missing_ok=True)


def download(hub_id: str, patterns: Sequence[str], remedy: str, **hub_options: Any) -> Path:
    """Download the files of a hub id whose names fit one of the patterns.

    Raises:
        UserError: If the hub cannot be reached or has no such id; the message ends with the remedy.
    """
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), **hub_options))
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"cannot load {hub_id!r}: no such folder, and the hub gave nothing ({reason}); check the name and the network, "
            f"or {remedy}"
        ) from error


def _type_name(tensor: Tensor) -> str:
    return "floats" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
