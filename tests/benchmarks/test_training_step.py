"""The plain training step computes what the usual one computes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.config import DoveConfig
from dove.training.config import DoveLossConfig, DoveTrainConfig, PrefixLossConfig, PrefixTrainConfig, RunConfig
from dove.training.objectives import PrefixObjective


def test_plain_and_usual_steps_give_the_same_loss(
    tiny_config: DoveConfig, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import training_step

    loss = PrefixLossConfig(perceptual=0.0, perceptual_network="none")
    config = PrefixTrainConfig(preset="dove-tiny", model=replace(tiny_config, eos_head="quality"), loss=loss)
    losses = []
    forward = PrefixObjective.forward

    def recording(self: PrefixObjective, *arguments: object) -> object:
        result = forward(self, *arguments)
        losses.append(result.loss.item())
        return result

    monkeypatch.setattr(PrefixObjective, "forward", recording)
    for name in ("plain fp32", "ours"):
        training_step.make_step(config, name, images).run()
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # the second one in bfloat16


def test_a_preset_in_epochs_is_measured_too(
    tiny_config: DoveConfig, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import training_step

    loss = DoveLossConfig(perceptual=0.0, perceptual_network="none", gan=0.0)
    config = DoveTrainConfig(preset="dove-base", model=tiny_config, loss=loss, run=RunConfig(steps=0, epochs=20.0))
    training_step.make_step(config, "plain fp32", images).run()
