"""Blocks that are computed twice: equal gradients, less kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dove.tokenizer import Dove
from dove.training.config import DoveTrainConfig, RunConfig
from dove.training.memory import advice, checkpoint_activations, innermost_blocks
from dove.training.objectives import DoveObjective, Step
from dove.training.setup import run_training
from dove.training.state import checkpoints, load_state


def kept_bytes(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """A result, and the bytes that its backward pass will read, each storage counted once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return run(), sum(storages.values())


def test_gradients_are_the_same_and_less_is_kept(tiny_training: DoveTrainConfig) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    for twice in (False, True):
        torch.manual_seed(0)
        model = Dove(tiny_training.model)
        objective = DoveObjective(replace(tiny_training, loss=replace(tiny_training.loss, gan=0.0)), model)
        if twice:
            checkpoint_activations(model)
        loss, kept = kept_bytes(lambda objective=objective: objective(images, Step(5)).loss)  # type: ignore[misc]
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found.append((loss.detach(), kept, gradients))
    (plain, kept, expected), (loss, kept_twice, gradients) = found
    assert torch.equal(loss, plain)
    assert kept_twice < 0.5 * kept
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-7, rtol=1e-5, msg=name)


def test_transformer_and_vqgan_blocks_are_found(tiny_dove: Dove) -> None:
    names = {type(block).__name__ for block in innermost_blocks(tiny_dove)}
    assert any("Resnet" in name for name in names)
    assert len(names) > 2
    assert all(
        not isinstance(module, nn.ModuleList) for block in innermost_blocks(tiny_dove) for module in block.modules()
    )


def test_blocks_are_what_is_called_in_a_list_of_modules() -> None:
    deep = nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]), nn.Linear(1, 1))
    model = nn.ModuleDict({"a": nn.ModuleList([deep, nn.ModuleList([nn.Linear(2, 2)])]), "b": nn.Linear(1, 1)})
    assert innermost_blocks(model) == [deep[0][0], model["a"][1][0]]


def test_a_training_ends_with_the_same_weights(tiny_training: DoveTrainConfig, tmp_path: Path) -> None:
    run_training(tiny_training)
    run = replace(tiny_training.run, activation_checkpointing=True)
    twice = replace(tiny_training, run=run, output=str(tmp_path / "twice"))
    run_training(twice)
    first, second = (
        load_state(checkpoints(Path(config.output) / "checkpoints")[-1])["model"] for config in (tiny_training, twice)
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_advice_names_what_is_left_to_change() -> None:
    told = advice(RunConfig(batch_size=24, accumulate=2))
    assert "--run.batch-size 12 --run.accumulate 4" in told
    assert "--run.activation-checkpointing True" in told
    assert "bf16" not in advice(RunConfig(precision="bf16")).split("with")[-1]
    assert "a smaller model" in advice(RunConfig(batch_size=1, activation_checkpointing=True, sharding="fsdp"))
