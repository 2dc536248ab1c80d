"""Trainings in processes that begin as copies of one that has imported everything: most of a short one would be imports."""

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context

IMPORTED = ("dove.commands.train", "dove.training.setup", "dove.vlm.train")


def run_forked(arguments: list[str], processes: int, main: Callable[[list[str]], int]) -> int:
    """Run a training on the CPU and return its exit status; when one of its processes fails, the others are ended.

    Args:
        arguments: of the command.
        processes: that share it, with the environment that ``torchrun`` would give them.
        main: runs a command and returns its exit status; an importable function.
    """
    from torch.multiprocessing import ProcessExitedException, start_processes  # type: ignore[attr-defined]

    get_context("forkserver").set_forkserver_preload(list(IMPORTED))
    environment = dict(os.environ)
    if processes > 1:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    try:
        start_processes(_work, (main, arguments, environment), nprocs=processes, start_method="forkserver")
    except ProcessExitedException as error:
        return int(error.exit_code)
    return 0


def _work(rank: int, main: Callable[[list[str]], int], arguments: list[str], environment: dict[str, str]) -> None:
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if "WORLD_SIZE" in environment else {}
    os.environ.clear()
    os.environ.update(environment | ranks)
    sys.exit(main(arguments))
