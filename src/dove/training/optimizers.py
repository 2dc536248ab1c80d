"""Optimizers by name: AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dove.config import OptimConfig
from dove.errors import UserError

MUON_MOMENTUM = 0.95


class MuonAndAdamW:
    """Two optimizers that act as one.

    An update is left out where ``found_inf``, set before a step, is above 0, as the fused AdamW does it by itself. Muon has to
    be told by the host, which waits for the device there.

    Args:
        muon: for the hidden matrices.
        adamw: for the rest, fused.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer):
        self.muon, self.adamw = muon, adamw
        self.found_inf: Tensor | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of both; changes of their learning rates take effect."""
        return self.muon.param_groups + self.adamw.param_groups

    def step(self) -> None:
        """Move all weights."""
        self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.adamw.step()
        if self.found_inf is None or not bool(self.found_inf):
            self.muon.step()

    def zero_grad(self) -> None:
        self.muon.zero_grad()
        self.adamw.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def make_optimizer(config: OptimConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer | MuonAndAdamW:
    """The optimizer that ``config`` names, for the parameters of ``model`` that are trained.

    Raises:
        UserError: for Muon, if ``model`` has no hidden matrices.
    """
    if config.optimizer == "adamw":
        return make_adamw(config, list(model.parameters()), lr)
    hidden = hidden_matrices(model)
    if not hidden:
        raise UserError("this model has no transformer whose matrices Muon could train; pass --optim.optimizer adamw")
    # With updates as large as AdamW's, the learning rate and the weight decay that suit the one suit the other
    # ("Muon is Scalable for LLM Training", arXiv:2502.16982, section 2.2).
    muon = torch.optim.Muon(
        hidden, lr=lr, weight_decay=config.weight_decay, momentum=MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    there = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in there]
    return MuonAndAdamW(muon, make_adamw(config, rest, lr))


def load_optimizer(
    optimizer: torch.optim.Optimizer | MuonAndAdamW,
    state: dict[str, Any],
    own: Callable[[torch.optim.Optimizer, dict[str, Any]], dict[str, Any]] = lambda _, state: state,
) -> None:
    """Take over the state of an optimizer in a checkpoint.

    Args:
        optimizer: gets the state.
        state: from the checkpoint.
        own: gives what this process holds of a state.

    Raises:
        UserError: if that was of another kind.
    """
    found, expected = ("muon" if "muon" in kind else "adamw" for kind in (state, optimizer.state_dict()))
    if found != expected:
        raise UserError(f"the checkpoint to resume from was trained by {found}; pass --optim.optimizer {found}")
    if isinstance(optimizer, MuonAndAdamW):
        parts = {"muon": optimizer.muon, "adamw": optimizer.adamw}
        optimizer.load_state_dict({name: own(part, state[name]) for name, part in parts.items()})
    else:
        optimizer.load_state_dict(own(optimizer, state))


def make_adamw(config: OptimConfig, parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as biases, gains and position vectors have no reason to be small."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=True)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear layers inside repeated blocks, that is, in any ``ModuleList``.

    What leads into a stack of blocks and out of it is left out, as Muon's author advises.
    """
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    linears = [layer for stack in stacks for layer in stack.modules() if isinstance(layer, nn.Linear)]
    inside = {id(layer.weight) for layer in linears}  # a stack inside of a stack is met twice
    return [parameter for parameter in model.parameters() if id(parameter) in inside and parameter.requires_grad]
