"""Muon beside AdamW: what each of them moves, what it moves by, that nothing is lost on the way through a checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.config import OptimConfig, PrefixTrainConfig
from dove.errors import UserError
from dove.tokenizer import Dove
from dove.training.optimizers import hidden_matrices, load_optimizer, make_optimizer
from dove.training.setup import run_training
from dove.training.state import checkpoints, load_state
from dove.training.trainer import Trainer

MUON = OptimConfig(optimizer="muon", weight_decay=0.1)


def with_gradients(model: Dove, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest(tiny_dove: Dove) -> None:
    names = {id(parameter): name for name, parameter in tiny_dove.named_parameters()}
    hidden = {names[id(parameter)] for parameter in hidden_matrices(tiny_dove)}
    blocks = [f"{part}.backbone.model.layers." for part in ("generator", "token_decoder")]
    kinds = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    expected = {f"{block}{number}.{kind}.weight" for block in blocks for number in (0, 1) for kind in kinds}
    assert {name for name in hidden if "vqgan" not in name} == expected
    optimizer = make_optimizer(MUON, tiny_dove, 1e-3)
    found = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(found) == sorted(names)


def test_an_update_of_a_matrix_is_nearly_orthogonal_and_as_large_as_adamws(tiny_dove: Dove) -> None:
    optimizer = make_optimizer(replace(MUON, weight_decay=0.0), tiny_dove, 1e-3)
    weight = tiny_dove.generator.backbone.model.layers[0].mlp.dense_h_to_4h.weight
    before = weight.detach().clone()
    with_gradients(tiny_dove)
    optimizer.step()
    update = (weight.detach() - before) / 1e-3
    singular = torch.linalg.svdvals(update) / (0.2 * max(weight.shape) ** 0.5)
    assert singular.min() > 0.5  # Newton and Schulz's iteration leaves them between 0.7 and 1.2 or so
    assert singular.max() < 1.5
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_what_is_not_finite_moves_nothing(tiny_dove: Dove) -> None:
    optimizer = make_optimizer(MUON, tiny_dove, 1e-3)
    before = {name: tensor.clone() for name, tensor in tiny_dove.state_dict().items()}
    with_gradients(tiny_dove)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_dove.state_dict().items())
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in tiny_dove.named_parameters())


def test_resuming_equals_never_stopping(
    prefix_training: PrefixTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(prefix_training, optim=replace(prefix_training.optim, optimizer="muon"))
    run_training(config)
    cut = replace(config, output=str(tmp_path / "cut"))
    original = Trainer._step

    def dying(self: Trainer, batches: list[torch.Tensor], at: int) -> object:
        if at == 3:
            raise InterruptedError
        return original(self, batches, at)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(InterruptedError):
            run_training(cut)
    run_training(cut)
    whole, resumed = (load_state(checkpoints(Path(run.output) / "checkpoints")[-1])["model"] for run in (config, cut))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_does_not_go_on_with_another_optimizer(tiny_dove: Dove) -> None:
    adamw, muon = (make_optimizer(replace(MUON, optimizer=name), tiny_dove, 1e-3) for name in ("adamw", "muon"))
    for one, other, name in ((adamw, muon, "muon"), (muon, adamw, "adamw")):
        with pytest.raises(UserError, match=f"pass --optim.optimizer {name}"):
            load_optimizer(one, other.state_dict())


def test_muon_needs_matrices() -> None:
    with pytest.raises(UserError, match="no transformer"):
        make_optimizer(MUON, torch.nn.Conv2d(3, 3, 1), 1e-3)
