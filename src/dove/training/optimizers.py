"""The optimizer of all trainings: AdamW."""

import torch
from torch import nn

from dove.training.config import OptimConfig


def make_adamw(config: OptimConfig, parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as biases, gains and position vectors have no reason to be small."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=True)
