"""Training with discrete tokens: from a continuous tokenizer, with the loop and the objective that all others have."""

from dataclasses import replace
from pathlib import Path

import torch

from dove.config import PrefixTrainConfig
from dove.presets import PRESETS
from dove.tokenizer import Dove
from dove.training.setup import run_training


def test_a_continuous_tokenizer_becomes_a_discrete_one(prefix_training: PrefixTrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = Dove(prefix_training.model)
    plain.save_pretrained(tmp_path / "plain")
    config = replace(
        prefix_training,
        model=replace(prefix_training.model, token_kind="fsq", token_fineness=0.02),
        start="checkpoint",
        checkpoint=str(tmp_path / "plain"),
        run=replace(prefix_training.run, steps=3),
    )
    run_training(config)
    folder = run_training(replace(config, run=replace(config.run, steps=5)))  # resumed, with the grid of its checkpoint
    model = Dove.from_pretrained(folder)
    assert model.token_grid.fitted
    assert model.token_grid.bits.sum() > 0
    moved = model.generator.token_projection.weight - plain.generator.token_projection.weight
    assert moved.abs().max() > 0
    tokens = model.encode(torch.rand(2, 3, 16, 16) * 2 - 1, 16)
    assert torch.equal(model.token_grid.values(model.token_grid.ids(tokens.values)), tokens.values)


def test_the_preset_is_dove_tiny_with_another_kind_of_tokens() -> None:
    fsq, plain = PRESETS["dove-tiny-fsq"], PRESETS["dove-tiny"]
    assert isinstance(fsq, PrefixTrainConfig)
    assert isinstance(plain, PrefixTrainConfig)
    assert replace(fsq.model, token_kind="point") == plain.model
    assert (fsq.start, fsq.checkpoint) == ("checkpoint", "dove-tiny")
