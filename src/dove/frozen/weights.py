"""Reading of weights files of other projects."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dove.errors import UserError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from safetensors or torch's format. Nothing in the file is executed.

    Raises:
        UserError: If the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"no weights file at {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own kinds, pickle's among them
        raise UserError(f"{path} is damaged or no weights file; download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} does not hold a flat state dict; give one in torchvision's layout")
    return state


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite."""
    if not all(value.isfinite().all() for value in state.values()):
        raise UserError(f"{path} is damaged: some of its weights are not finite; download it again")
