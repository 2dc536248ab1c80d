"""Checkpoints to resume a training from: whole or absent, never half-written, and known by their hash."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from dove.errors import UserError
from dove.training.progress import CHECKPOINT

STATE_FILE = "state.pt"
MANIFEST_FILE = "manifest.json"
FORMAT = 1


def checkpoints(folder: Path) -> list[Path]:
    """List the whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{CHECKPOINT}*") if (path / STATE_FILE).is_file())


def save_state(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write the checkpoint of a step and then remove all but the ``keep`` newest."""
    final = folder / f"{CHECKPOINT}{step:08d}"
    scratch = folder / f".{final.name}"
    try:
        remove_scraps(folder)
        scratch.mkdir(parents=True)
        torch.save(state, scratch / STATE_FILE)
        manifest = {"format": FORMAT, "step": step, "sha256": {STATE_FILE: _sha256(scratch / STATE_FILE)}}
        (scratch / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in (scratch / STATE_FILE, scratch / MANIFEST_FILE, scratch):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        scratch.replace(final)
        _flush(folder)
        for old in checkpoints(folder)[:-keep]:
            # Out of sight first: a kill in the middle must not leave half a checkpoint under a name that counts.
            shutil.rmtree(old.rename(folder / f".{old.name}"))
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(scratch, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else f"the disk may be full, {str(error).splitlines()[0]}"
        raise UserError(
            f"cannot write the checkpoint of step {step} to {folder}: {reason}; earlier checkpoints are whole, free some "
            "space and run the same command again"
        ) from error


def remove_scraps(folder: Path) -> None:
    """Remove the unfinished folders of a killed run."""
    for scrap in folder.glob(f".{CHECKPOINT}*"):
        shutil.rmtree(scrap, ignore_errors=True)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint back, if it is the one that was written."""
    file = checkpoint / STATE_FILE
    try:
        _verify(checkpoint)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise _damaged(file, str(error).splitlines()[0]) from error
    assert isinstance(state, dict)
    return state


def _verify(checkpoint: Path) -> None:
    file = checkpoint / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found, hashes = manifest["format"], dict(manifest["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(file, "it is no manifest") from error
    if found != FORMAT:
        raise UserError(
            f"{file} has format {found}, this version reads {FORMAT}; resume with the version that wrote it"
        )
    for name, expected in hashes.items():
        actual = _sha256(checkpoint / name)
        if actual != expected:
            raise _damaged(checkpoint / name, f"its sha256 is {actual[:12]}..., {expected[:12]}... was written")


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is damaged ({reason}); remove the folder {file.parent} to resume from the one before")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Flush to the disk, for files and folders; what is only in the system's memory is lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters and buffers, each once."""
    return chain(module.named_parameters(), module.named_buffers())


def copy_around(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Copy a module, but for its tensors: the copy has ``tensors`` instead, by the names of :func:`named_tensors`."""
    memo: dict[int, Any] = {}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(tensors[name], parameter.requires_grad)
    for name, buffer in module.named_buffers():
        memo[id(buffer)] = tensors[name]
    return deepcopy(module, memo)


class BackgroundWriter(ThreadPoolExecutor):
    """Thread that runs writing jobs, one at a time, while the training goes on. Jobs must own what they write."""

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def begin(self, job: Callable[[], None]) -> None:
        """Start a job once the one before is done; raises what that one raised."""
        self.wait()
        self._pending = self.submit(job)

    def check(self) -> None:
        """Raise what the job has raised, if it is done, without waiting for it."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written; raises what the job raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
