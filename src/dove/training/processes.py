"""Environment of a training that several processes share."""

import os
from collections.abc import Mapping

from dove.errors import UserError

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
MOST_LOADERS = 8  # Loader processes of a training process that nobody asked for more or fewer of


def check_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that this process was launched as one of several in full, or not at all."""
    stray = [name for name in RANKS if name in environment]
    if not stray:
        return
    advice = f"start with torchrun, or take them away: env -u {' -u '.join(stray)} dove train ..."
    missing = [name for name in RANKS + ADDRESS if name not in environment]
    if missing:
        raise UserError(
            f"the environment has {', '.join(stray)} and not {', '.join(missing)}, so no launcher set them; {advice}"
        )
    values = [environment[name] for name in RANKS]
    if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
        told = ", ".join(f"{name}={value}" for name, value in zip(RANKS, values, strict=True))
        raise UserError(f"the environment has {told}, which is no rank of a process; {advice}")


def check_devices(gpus: int, environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that every process of this machine has a GPU of its own, where there are any."""
    if 0 < gpus <= int(environment.get("LOCAL_RANK", 0)):
        raise UserError(
            f"this machine has fewer GPUs ({gpus}) than processes were started on it "
            f"({environment.get('LOCAL_WORLD_SIZE', 'more')}); start with --nproc-per-node {gpus}, and keep the images of a "
            "step by raising --run.accumulate"
        )


def loader_processes(asked: int | None, *, gpu: bool, environment: Mapping[str, str] = os.environ) -> int:
    """Choose the number of loader processes of each training process."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_LOADERS, cores // int(environment.get("LOCAL_WORLD_SIZE", 1))) if gpu else 0
