"""Memory of a training: a message where it runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dove.errors import UserError
from dove.training.config import RunConfig

SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
"""Parts of torch's messages, in lower case, where there is no type of its own for them."""


@contextmanager
def memory_watched(run: RunConfig) -> Iterator[None]:
    """Name the settings that need less memory where it runs out.

    Raises:
        UserError: if it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise UserError(advice(run)) from error


def advice(run: RunConfig) -> str:
    """What to change where a run does not fit into memory, in a line."""
    ways = []
    if run.batch_size > 1:
        half = -(-run.batch_size // 2)
        ways.append(f"--run.batch-size {half} --run.accumulate {2 * run.accumulate} (as many images a step)")
    if run.precision == "fp32":
        ways.append("--run.precision bf16")
    if run.sharding == "none":
        ways.append("--run.sharding fsdp on several processes")
    return (
        f"memory ran out with {run.batch_size} images at a time in {run.precision}; what was written is whole, run the same "
        f"command again with {' or '.join(ways) or 'a smaller model'}"
    )
