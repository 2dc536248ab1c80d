"""Trainings by two processes over gloo, forked from one that has imported everything.

Run as a program, ``two_processes.py JOBS.json PORT``, where each job has a ``config`` (a file), an ``output`` and

- ``set``: settings of the run;
- ``start``: a checkpoint to resume from;
- ``die_at``: a step at which both processes stop;
- ``spoil``: a step at which the second process has an undefined gradient.

What a process holds when it first moves weights is left in the output folder, in ``holds-RANK.json``.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dove.commands.train import parse
from dove.training.setup import run_training
from dove.training.trainer import Trainer


class Died(Exception):
    pass


def local(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return [one.to_local() if isinstance(one, DTensor) else one for one in tensors if one is not None]


def held(trainer: Trainer) -> dict[str, int]:
    """Numbers in the memory of this process."""
    weights = list(trainer.objective.model.parameters())
    moments = [value for kept in trainer.optimizer.state.values() for value in kept.values()]
    kinds = {
        "weights": weights,
        "gradients": [weight.grad for weight in weights],
        "average": trainer.average.module.parameters(),
        "moments": [value for value in moments if value.ndim],
    }
    return {name: sum(one.numel() for one in local(tensors)) for name, tensors in kinds.items()}


def train(job: dict[str, Any], rank: int) -> None:
    config = parse(["--config", job["config"]])
    config = replace(config, output=job["output"], run=replace(config.run, **job.get("set", {})))
    output, step, update = Path(config.output), Trainer._step, Trainer._update
    seen: dict[str, int] = {}
    if rank == 0 and "start" in job:
        shutil.copytree(job["start"], output / "checkpoints" / Path(job["start"]).name)

    def mortal_step(self: Trainer, batches: Any, at: int) -> Any:
        if at == job.get("die_at"):
            raise Died
        result = step(self, batches, at)
        if not (output / f"holds-{rank}.json").exists():
            (output / f"holds-{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
        return result

    def watched_update(self: Trainer, parameters: Any, optimizer: Any, at: int, losses: Any) -> None:
        if optimizer is self.optimizer:
            gradients = [one for one in local(weight.grad for weight in parameters) if one.numel()]
            if at == job.get("spoil") and rank == 1:
                gradients[0].mul_(float("nan"))
            seen["gradients"] = held(self)["gradients"]
        update(self, parameters, optimizer, at, losses)
        if optimizer is self.optimizer:
            seen.update({name: count for name, count in held(self).items() if name != "gradients"})

    with patch.object(Trainer, "_step", mortal_step), patch.object(Trainer, "_update", watched_update):
        try:
            run_training(config)
        except Died:
            pass
    torch.distributed.barrier()


def work(rank: int, jobs: list[dict[str, Any]]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    for job in jobs:
        train(job, rank)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
    todo = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.multiprocessing.start_processes(work, args=(todo,), nprocs=2, start_method="fork")
