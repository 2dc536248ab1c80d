"""Memory of a training: blocks that are computed twice to save it, and a message where it runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dove.errors import UserError
from dove.training.config import RunConfig

SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
"""Parts of torch's messages, in lower case, where there is no type of its own for them."""


def checkpoint_activations(model: nn.Module) -> None:
    """Make every block of a model keep its input alone for the backward pass, in which it is computed again.

    Blocks are what stands in lists of modules and has no such list inside. Gradients stay the same.
    """
    for block in innermost_blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def innermost_blocks(model: nn.Module) -> list[nn.Module]:
    """List the modules in lists of modules that have no further list inside."""
    entries = [entry for module in model.modules() if isinstance(module, nn.ModuleList) for entry in module]
    return [entry for entry in entries if not any(isinstance(module, nn.ModuleList) for module in entry.modules())]


@contextmanager
def memory_watched(run: RunConfig) -> Iterator[None]:
    """Name the settings that need less memory where it runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise UserError(advice(run)) from error


def advice(run: RunConfig) -> str:
    """Name the settings to change for a run that does not fit into memory, in a line."""
    ways = []
    if run.batch_size > 1:
        half = -(-run.batch_size // 2)
        ways.append(f"--run.batch-size {half} --run.accumulate {2 * run.accumulate} (as many images a step)")
    if not run.activation_checkpointing:
        ways.append("--run.activation-checkpointing True")
    if run.precision == "fp32":
        ways.append("--run.precision bf16")
    if run.sharding == "none":
        ways.append("--run.sharding fsdp on several processes")
    return (
        f"memory ran out with {run.batch_size} images at a time; what was written is whole, run the same "
        f"command again with {' or '.join(ways) or 'a smaller model'}"
    )
