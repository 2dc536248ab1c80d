"""Schedule of a run: its number of steps and the learning rate."""

import math
from dataclasses import replace
from typing import TypeVar

from dove.training.config import OptimConfig, RunConfig, TrainConfig

Settings = TypeVar("Settings", bound=TrainConfig)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Compute the learning rate of a step.

    It warms up linearly from 0, stays at its peak, and falls as a cosine to ``config.final_lr`` over the last
    ``config.decay_share`` of the run.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    begin = max(config.warmup_steps, steps - round(config.decay_share * steps))
    progress = min(1.0, max(0, step - begin) / max(1, steps - begin))
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def images_per_step(run: RunConfig, processes: int) -> int:
    """Count the images of one update, over all its batches and all processes."""
    return run.batch_size * run.accumulate * processes


def in_steps(config: Settings, images: int, processes: int) -> Settings:
    """Give the same settings with ``run.steps`` in the place of ``run.epochs``."""
    run = config.run
    if not run.epochs:
        return config
    steps = math.ceil(run.epochs * images / images_per_step(run, processes))
    return replace(config, run=replace(run, steps=steps, epochs=0.0))
