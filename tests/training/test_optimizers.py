"""AdamW: what decays, and what an undefined gradient moves."""

import torch

from dove.tokenizer import Dove
from dove.training.config import OptimConfig
from dove.training.trainer import make_adamw


def moved(model: Dove, optimizer: torch.optim.AdamW) -> set[str]:
    """Names of the weights that one step changes."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer.step()
    return {name for name, weight in model.named_parameters() if not torch.equal(before[name], weight)}


def test_weights_of_two_dimensions_and_more_decay(tiny_dove: Dove) -> None:
    for weight in tiny_dove.parameters():
        weight.data.fill_(1.0)
        weight.grad = torch.zeros_like(weight)
    optimizer = make_adamw(OptimConfig(weight_decay=0.1), list(tiny_dove.parameters()), 1e-2)
    assert moved(tiny_dove, optimizer) == {name for name, weight in tiny_dove.named_parameters() if weight.ndim > 1}


def test_what_is_not_finite_moves_nothing(tiny_dove: Dove) -> None:
    optimizer = make_adamw(OptimConfig(), list(tiny_dove.parameters()), 1e-3)
    for weight in tiny_dove.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.found_inf = torch.ones(())
    assert moved(tiny_dove, optimizer) == set()
    optimizer.found_inf = torch.zeros(())
    assert moved(tiny_dove, optimizer) == {name for name, _ in tiny_dove.named_parameters()}
