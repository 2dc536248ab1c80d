"""Checkpoints to resume a training from: whole or absent, never half-written."""

import os
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from dove.errors import UserError

STATE_FILE = "state.pt"
PREFIX = "step-"


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / STATE_FILE).is_file())


def save_state(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write the checkpoint of a step and then remove all but the ``keep`` newest.

    Raises:
        UserError: if the disk is full or not writable; earlier checkpoints stay whole.
    """
    final = folder / f"{PREFIX}{step:08d}"
    scratch = folder / f".{final.name}"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        torch.save(state, scratch / STATE_FILE)
        with open(scratch / STATE_FILE, "rb") as file:
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(scratch, final)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(scratch, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint of step {step} to {folder}: {error}; earlier checkpoints are whole, free some "
            "space and run the same command again"
        ) from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint back.

    Raises:
        UserError: if it is damaged.
    """
    try:
        state = torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise UserError(
            f"{checkpoint} is damaged ({str(error).splitlines()[0]}); remove it to resume from the one before"
        ) from error
    assert isinstance(state, dict)
    return state
