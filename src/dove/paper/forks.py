"""Trainings in processes that begin as copies of one that has imported everything: most of a short one would be imports."""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing import connection, get_context

IMPORTED = ("dove.commands.train", "dove.training.setup", "dove.vlm.train")


def run_forked(arguments: list[str], processes: int, main: Callable[[list[str]], int]) -> int:
    """Run a training on the CPU and return its exit status; when one of its processes fails, the others are ended.

    Args:
        arguments: of the command.
        processes: that share it, with the environment that ``torchrun`` would give them.
        main: runs a command and returns its exit status; an importable function.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    workers = []
    for rank in map(str, range(processes)):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        shared = {**ranks, **address} if processes > 1 else {}
        workers.append(context.Process(target=_work, args=(main, arguments, {**os.environ, **shared})))
    for worker in workers:
        worker.start()
    running, status = list(workers), 0
    try:
        while running and not status:
            connection.wait([worker.sentinel for worker in running])
            for worker in [worker for worker in running if worker.exitcode is not None]:
                running.remove(worker)
                status = status or worker.exitcode or 0
    finally:
        for worker in running:
            worker.terminate()
            worker.join()
    return status


def _work(main: Callable[[list[str]], int], arguments: list[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(arguments))


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
