"""The command ``dove info``: description of a checkpoint or of the installation."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

MOST_SHOWN = 8  # Greatest number of entries of a list in the text; JSON has all


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Say what a checkpoint is; without one, what is shipped and installed."""

    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[CHECKPOINT]")] = None
    """A shipped name, a checkpoint folder or a hub id."""
    json: bool = False
    """Print JSON."""


def run(options: InfoOptions) -> None:
    """Print the description."""
    found = describe_installation() if options.checkpoint is None else describe_checkpoint(options.checkpoint)
    print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))


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
    parts: dict[str, int] = {}
    for key, tensor in weights.items():
        part = key.split(".")[0]
        parts[part] = parts.get(part, 0) + (tensor.numel() if tensor.is_floating_point() else 0)
    card = folder / CARD_FILE
    return {
        "name": name,
        "folder": str(folder),
        "megabytes": round(sum(file.stat().st_size for file in weight_files(folder)) / 1e6, 2),
        "sha256": checkpoint_sha256(folder),
        "card": str(card) if card.is_file() else None,
        "parameters": {**parts, "total": sum(parts.values())},
        "config": asdict(config),
    }


def describe_installation() -> dict[str, Any]:
    """Collect shipped checkpoints, versions and devices."""
    import torch

    from dove import __version__
    from dove.checkpoint import shipped_checkpoints
    from dove.runtime import installed_version

    packages = ("torch", "torchvision", "transformers", "diffusers", "safetensors", "pyarrow", "accelerate")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "dove": __version__,
        "python": platform.python_version(),
        "packages": {package: installed_version(package) or "not installed" for package in packages},
        "devices": ["cpu", *gpus],
        "checkpoints": {name: str(Path(folder)) for name, folder in shipped_checkpoints().items()},
    }


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
            if isinstance(value, list | tuple) and len(value) > MOST_SHOWN:
                shown = f"{', '.join(map(str, value[:MOST_SHOWN]))}, ... ({len(value):,} in all, see --json)"
            lines.append(f"{indent}{name:{width}}  {shown}")
    return lines
