"""Layouts of a training on its processes: whole on every one of them, or sharded between them."""

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import AveragedModel

from dove.errors import UserError
from dove.training.config import TrainConfig
from dove.training.memory import innermost_blocks
from dove.training.objectives import CodebookObjective, Objective, StepResult
from dove.training.state import copy_around, named_tensors


class Replicated:
    """Every process holds everything, and gradients are averaged (DDP)."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.outline: nn.Module | None = None
        """The model whose copies get the tensors of the moving average, on the process that writes."""

    def spread(self, objective: Objective[Any], average: AveragedModel) -> nn.Module:
        """Lay out an objective and its model's moving average on the device, and give what to call in the objective's place."""
        self.outline = average.module if self.accelerator.is_main_process else None
        average.to(self.accelerator.device)
        return self.accelerator.prepare_model(objective.to(self.accelerator.device))

    def beside(self, objective: Objective[Any]) -> list[nn.Parameter]:
        """List the trained parameters whose gradients are not averaged over the processes yet."""
        return []

    def whole(self, average: AveragedModel) -> nn.Module | None:
        """Give the moving average, to be measured; None on a process that cannot. All processes have to ask."""
        return average.module

    def copies(self, average: AveragedModel, state: Any) -> tuple[nn.Module, Any] | None:
        """Copy the moving average and a training's state, whole, to the CPU of the process that writes; all have to ask."""
        model = self._put_together(average.module, torch.device("cpu"))

        def found(tensor: Tensor) -> Tensor | None:
            whole = gather(tensor)  # one at a time, and let go again at once where nothing is written
            return None if model is None else whole.to("cpu", copy=True)

        everything = recursively_apply(found, state)
        return None if model is None else (model, everything)

    def _put_together(self, model: nn.Module, device: torch.device) -> nn.Module | None:
        """Copy a model of the outline's form, whole, to a device of the process that writes."""
        tensors = {}
        for name, tensor in named_tensors(model):
            found = gather(tensor)
            if self.outline is not None:
                tensors[name] = found.to(device, copy=True)
        return None if self.outline is None else copy_around(self.outline, tensors)


class Sharded(Replicated):
    """Every process holds its share of weights, gradients, moving average and optimizer state (FSDP2).

    The blocks of the model are put together one after the other while they are computed with. What an objective has beside
    its model, a discriminator and fixed networks, is small and whole on every process.

    This calls torch itself, as accelerate shards one model with one optimizer, and an objective has two of each.
    """

    def __init__(self, accelerator: Accelerator):
        super().__init__(accelerator)
        self.mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))

    def spread(self, objective: Objective[Any], average: AveragedModel) -> nn.Module:
        """Shard an objective's model and the moving average over the processes, and give the objective."""
        device = self.accelerator.device
        for _, tensor in named_tensors(objective):
            first = tensor.detach().to(device).contiguous()
            distributed.broadcast(first, 0)  # as DDP does
            tensor.detach().copy_(first)
        if self.accelerator.is_main_process:
            empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in named_tensors(average.module)}
            self.outline = copy_around(average.module, empty)
        trained = {id(parameter) for parameter in objective.model.parameters()}
        beside = {parameter for parameter in objective.parameters() if id(parameter) not in trained}
        for child in objective.children():
            if child is not objective.model:
                child.to(device)
        objective.register_forward_hook(without_views)  # ahead of FSDP2's own, which sees what this returns
        # The model is not moved before: a block at a time comes to the device, and a share of it stays.
        shard(objective.model, objective, self.mesh, beside)
        shard(average.module, average.module, self.mesh, set())
        return objective

    def beside(self, objective: Objective[Any]) -> list[nn.Parameter]:
        """List the trained parameters outside of the model, which FSDP2 does not average."""
        model = {id(parameter) for parameter in objective.model.parameters()}
        return [parameter for parameter in objective.trained() if id(parameter) not in model]

    def whole(self, average: AveragedModel) -> nn.Module | None:
        """Put the moving average together on the first process; None on the others."""
        return self._put_together(average.module, self.accelerator.device)


def make_layout(config: TrainConfig, objective: Objective[Any], accelerator: Accelerator) -> Replicated:
    """Make the layout that ``run.sharding`` names."""
    if config.run.sharding == "none":
        return Replicated(accelerator)
    if accelerator.num_processes == 1:
        raise UserError(
            "run.sharding=fsdp cuts a training up between processes, and there is one; start several with torchrun, "
            "or pass --run.sharding none"
        )
    if isinstance(objective, CodebookObjective) and objective.restarts.patience:
        raise UserError(
            "run.sharding=fsdp cannot move idle codebook entries; pass --loss.restart-after 0, or --run.sharding none"
        )
    return Sharded(accelerator)


def without_views(_objective: nn.Module, _inputs: Any, result: StepResult) -> StepResult:
    """Copy a step's reconstruction, since FSDP2 hooks its backward pass to results, and a hook on a view can be lost."""
    return replace(result, reconstruction=result.reconstruction.clone())


def shard(model: nn.Module, root: nn.Module, mesh: DeviceMesh, beside: set[nn.Parameter]) -> None:
    """Cut up the parameters of ``model``, which is in the called ``root``, block by block; those ``beside`` stay whole."""
    for block in innermost_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh, ignored_params=beside)
    for module in root.modules():
        if isinstance(module, FSDPModule) and mesh.device_type == "cpu":
            module.set_force_sum_reduction_for_comms(True)  # gloo has no mean


def gather(tensor: Tensor) -> Tensor:
    """Gather a tensor as a whole, on every process."""
    plain = tensor.detach()
    return plain.full_tensor() if isinstance(plain, DTensor) else plain


def own_weights(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the part of a module's whole weights that this process holds."""
    own = module.state_dict()
    return {name: share(tensor, own.get(name)) for name, tensor in weights.items()}


def own_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Select the part of an optimizer's whole state that this process holds."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = {
        number: {
            name: share(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in moments.items()
        }
        for number, moments in state["state"].items()
    }
    return {**state, "state": own}


def share(whole: Tensor, own: Tensor | None) -> Tensor:
    """Select the part of ``whole`` that this process holds, laid out as ``own``."""
    if not isinstance(own, DTensor):
        return whole
    part = torch.empty_like(own.detach())
    # A copy, as a part that looked into the whole would keep all of it in the device's memory.
    return part.copy_(distribute_tensor(whole.to(part.device), own.device_mesh, own.placements, src_data_rank=None))
