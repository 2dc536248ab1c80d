"""The command ``dove info``: description of a checkpoint, or the list of those that ship."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro
import yaml


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Say what a checkpoint is; without one, which ones ship.

    sha256 is that of config.json and the weights, one after the other, as in the reports of dove evaluate.
    """

    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[CHECKPOINT]")] = None
    """A shipped name, a checkpoint folder or a hub id."""
    json: bool = False
    """Print JSON."""


def run(options: InfoOptions) -> None:
    """Print the description."""
    from dove.checkpoint import read_model_type, shipped_checkpoints

    found: dict[str, Any]
    if options.checkpoint is None:
        shipped = shipped_checkpoints().items()
        found = {name: {"kind": read_model_type(folder), "folder": str(folder)} for name, folder in shipped}
    else:
        found = describe_checkpoint(options.checkpoint)
    text = yaml.safe_dump(found, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    print(json.dumps(found, indent=2) if options.json else text.rstrip())


def describe_checkpoint(name: str) -> dict[str, Any]:
    """Collect sizes, hash, settings and card of a checkpoint."""
    from dove.checkpoint import CARD_FILE, checkpoint_sha256, load_checkpoint, model_type, resolve_checkpoint
    from dove.registry import MODELS, find_settings, require_known_type
    from dove.vlm.config import VLMConfig
    from dove.weight_files import weight_files

    folder = resolve_checkpoint(name)
    language_model = model_type(VLMConfig)
    kind = require_known_type(folder, [*MODELS, language_model])
    config, weights = load_checkpoint(folder, VLMConfig if kind == language_model else find_settings(kind))
    parts: Counter[str] = Counter()
    for key, tensor in weights.items():
        parts[key.split(".")[0]] += tensor.numel() if tensor.is_floating_point() else 0
    card = folder / CARD_FILE
    return {
        "name": name,
        "folder": str(folder),
        "megabytes": round(sum(file.stat().st_size for file in weight_files(folder)) / 1e6, 2),
        "sha256": checkpoint_sha256(folder),
        "card": str(card) if card.is_file() else None,
        "parameters": {**parts, "total": parts.total()},
        "config": asdict(config),
    }
