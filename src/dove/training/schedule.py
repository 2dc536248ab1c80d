"""Learning rate by step."""

import math

from dove.training.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Linear warm-up from 0, then a cosine down to ``config.final_lr`` at ``steps``; ``step`` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
