"""Programs that are killed, started by a fork server that has imported everything already, so that a start takes no time."""

import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

LOG = Path(tempfile.gettempdir()) / f"dove-victim-{os.getuid()}.log"
"""What the last program said."""
MODULES = ["dove.cli", "dove.training.setup", "dove.commands.encode", "dove.runtime", "dove.store", "victims"]


def train(config: Any) -> None:
    """Train, with its words in ``LOG``."""
    _quiet()
    from dove.training.setup import run_training

    run_training(config)


def command(*arguments: str) -> None:
    """A command line of ``dove``."""
    _quiet()
    from dove.cli import main

    os._exit(main(arguments))


def limited(limit: int, log: str, *arguments: str) -> None:
    """A command that may write no file of more than ``limit`` bytes: what a full disk does, without filling one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    from dove.cli import main

    os._exit(main(arguments))


def _quiet() -> None:
    import torch

    torch.set_num_threads(1)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


@dataclass
class Killer:
    """Runs a program again and again, and kills it at a random moment each time.

    Attributes:
        seed: of the moments.
        look: says, after a kill, in the middle of what it came; counted in ``seen``.
        moments: seconds from a start between which the moments are drawn.
        survived: kills so far.
    """

    seed: int
    look: Callable[[], str]
    moments: tuple[float, float] = (0.0, 1.0)
    survived: int = 0

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.context = fork_server()
        self.seen: dict[str, int] = {}

    def run(self, program: Callable[..., None], *arguments: Any) -> int:
        """The whole program, undisturbed; its exit status."""
        process = self.context.Process(target=program, args=arguments)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def kill(self, program: Callable[..., None], *arguments: Any) -> bool:
        """Start the program and kill it; False where it was done before its moment came."""
        process = self.context.Process(target=program, args=arguments)
        process.start()
        process.join(self.draw.uniform(*self.moments))
        if process.exitcode is not None:
            assert process.exitcode == 0, (
                f"it ended by itself with status {process.exitcode}: {LOG.read_text()[-3000:]}"
            )
            return False
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        self.survived += 1
        found = self.look()
        self.seen[found] = self.seen.get(found, 0) + 1
        return True


def fork_server() -> ForkServerContext:
    """A context whose processes find everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


def seconds(program: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    program()
    return time.monotonic() - began
