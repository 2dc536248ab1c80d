"""Trainings that start from another tokenizer's weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.checkpoint import save_checkpoint
from dove.config import DoveConfig
from dove.errors import UserError
from dove.models.vqgan import VQGAN
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove
from dove.training.config import TokenizerTrainConfig
from dove.training.initialisation import initialise_dove, initialise_from_checkpoint
from dove.training.presets import PRESETS


def test_a_head_that_predicts_the_distance_too_gives_its_part(
    tiny_config: DoveConfig, images: torch.Tensor, tmp_path: Path
) -> None:
    both = Dove(replace(tiny_config, eos_head="quality", quality_perceptual="squeezenet")).eval()
    both.save_pretrained(tmp_path)
    alone = Dove(replace(tiny_config, eos_head="quality")).eval()
    initialise_from_checkpoint(alone, str(tmp_path))
    expected, found = (model.generate(images).eos for model in (both, alone))
    torch.testing.assert_close(found.quality, expected.quality)
    assert found.perceptual is None


def test_a_vqgan_stage_goes_before_the_checkpoint_that_the_rest_begins_with(
    tiny_config: DoveConfig, tmp_path: Path
) -> None:
    dove, vqgan = Dove(tiny_config), VQGAN(tiny_config.vqgan)
    dove.save_pretrained(tmp_path / "dove")
    save_checkpoint(tmp_path / "vqgan", tiny_config.vqgan, vqgan.state_dict())
    config = replace(
        PRESETS["dove-tiny-paper"],
        model=tiny_config,
        start="checkpoint",
        checkpoint=str(tmp_path / "dove"),
        vqgan_checkpoint=str(tmp_path / "vqgan"),
    )
    found = initialise_dove(config, lambda: torch.zeros(1, 3, 16, 16)).state_dict()
    assert torch.equal(found["vqgan.decoder.conv_out.weight"], vqgan.decoder.conv_out.weight)
    name = "generator.transformer.layers.0.mlp.dense_h_to_4h.weight"
    assert torch.equal(found[name], dove.state_dict()[name])


@pytest.mark.parametrize(
    "name", [name for name, preset in PRESETS.items() if getattr(preset, "checkpoint", "") == "dove-tiny"]
)
def test_presets_fit_the_shipped_checkpoint_that_they_start_from(name: str) -> None:
    config = PRESETS[name]
    assert isinstance(config, TokenizerTrainConfig)
    model = (QDove if name.startswith("q") else Dove)(config.model)
    initialise_from_checkpoint(model, config.checkpoint)
    shipped = Dove.from_pretrained("dove-tiny")
    for part in ("vqgan.embed.weight", "generator.transformer.layers.0.mlp.dense_h_to_4h.weight"):
        torch.testing.assert_close(model.state_dict()[part], shipped.state_dict()[part])


@pytest.mark.parametrize(
    ("changed", "message"), [({"num_layers": 3}, "generator.num_layers 2"), ({"num_heads": 4}, "generator.num_heads 2")]
)
def test_weights_of_other_sizes_are_refused(
    changed: dict[str, int], message: str, tiny_config: DoveConfig, tmp_path: Path
) -> None:
    Dove(tiny_config).save_pretrained(tmp_path)
    other = Dove(replace(tiny_config, generator=replace(tiny_config.generator, **changed)))
    with pytest.raises(UserError, match=message):
        initialise_from_checkpoint(other, str(tmp_path))
