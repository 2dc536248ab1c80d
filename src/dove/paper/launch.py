"""Commands as processes: trainings on all GPUs there are, with as many images a step as the paper has."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from dove.paper.models import Step

MOST_IMAGES = 24  # Images that one process takes at a time, as on the paper's cards


def spread(images: int, processes: int) -> tuple[int, int, int]:
    """Divide the images of a step among the processes that there could be.

    Returns:
        The processes that divide them, the images of a batch, and the batches of a step: their product is ``images``.
    """
    shared = max(count for count in range(1, min(images, processes) + 1) if images % count == 0)
    each = images // shared
    batch = max(count for count in range(1, min(each, MOST_IMAGES) + 1) if each % count == 0)
    return shared, batch, each // batch


def arguments_of(step: Step, processes: int) -> tuple[int, list[str]]:
    """The processes that a step takes of those there are, and its arguments with its share of the images."""
    if step.images is None:
        return 1, step.arguments
    shared, batch, accumulate = spread(step.images, min(processes, step.most_processes or processes))
    return shared, [*step.arguments, "--run.batch-size", str(batch), "--run.accumulate", str(accumulate)]


def command_line(step: Step, processes: int) -> str:
    """Compose the command line that a user would type."""
    shared, arguments = arguments_of(step, processes)
    launcher = f"torchrun --standalone --nproc-per-node {shared} -m dove" if shared > 1 else "dove"
    return f"{launcher} {shlex.join(arguments)}"


def run_step(step: Step, processes: int, here: Callable[[list[str]], int]) -> int:
    """Run a step to its end and return its exit status.

    A training that may be spread gets processes of its own: it leaves threads, seeds and an accelerator's settings behind.
    """
    shared, arguments = arguments_of(step, processes)
    if step.images is None:
        return here(arguments)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(shared)] if shared > 1 else []
    threads = {} if "OMP_NUM_THREADS" in os.environ or shared == 1 else {"OMP_NUM_THREADS": "1"}
    command: Sequence[str] = [sys.executable, *launcher, "-m", "dove", *arguments]
    return subprocess.run(command, check=False, env={**os.environ, **threads}).returncode
