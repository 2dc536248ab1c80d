"""The plain training step computes what the other does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.config import DoveConfig
from dove.tokenizer import Dove
from dove.training.config import PrefixLossConfig, PrefixTrainConfig


def test_both_layouts_give_the_same_loss(
    tiny_config: DoveConfig, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import training_step

    loss = PrefixLossConfig(gan=0.0, perceptual=0.0, perceptual_network="none")
    config = PrefixTrainConfig(preset="dove-tiny", model=replace(tiny_config, eos_head="quality"), loss=loss)
    losses = []
    for kind in (training_step.PlainPrefix, training_step.PrefixObjective):
        torch.manual_seed(0)
        objective = kind(config, Dove(config.model))
        objective.loss = replace(loss, perceptual=1.0, perceptual_network="squeezenet")
        objective.perceptual.forward = lambda first, second: (first - second).abs().mean((1, 2, 3))
        losses.append(objective(images, 0).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
