"""Devices, models and output files of commands and evaluations."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from dove.checkpoint import write_files
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.registry import load_tokenizer


def select_device(name: str) -> torch.device:
    """Select a device by name; ``auto`` is a GPU where there is one.

    Raises:
        UserError: If it is not known or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} is not available here; pass cpu, or auto to take what there is") from error
    return device


def load_model(name: str | Path, device: str) -> Tokenizer:
    """Load a tokenizer of any kind; a device that is missing is reported before the weights are loaded."""
    target = select_device(device)
    model = load_tokenizer(name)
    assert isinstance(model, nn.Module)
    return model.to(target)


def installed_version(package: str) -> str | None:
    """Look up the version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save_outputs(contents: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all, making their folders.

    Raises:
        UserError: If one cannot be written; what was there stays.
    """
    for path, content in contents.items():
        write_files(path.parent, {path.name: content})
