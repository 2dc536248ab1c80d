"""The bench's presets are equal where they have to be."""

from dataclasses import replace

import pytest

from dove.baselines.alit import ALIT
from dove.training.baseline_config import ALITCodesTrainConfig, ALITPixelsTrainConfig
from dove.training.presets import PRESETS
from dove.training.recipes import RECIPES, image_size

SIZE, IMAGES = 1_500_000, 200_000
BENCH = [config for name, config in PRESETS.items() if name.endswith("-bench")]


def parameters(config) -> int:
    if isinstance(config, ALITCodesTrainConfig | ALITPixelsTrainConfig):
        model = ALIT(config.model)
    else:
        model = RECIPES[type(config)].initialise(config, None)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("config", BENCH, ids=lambda config: config.preset)
def test_presets_have_equal_sizes_and_lengths(config) -> None:
    if config.preset != "alit-vqgan-bench":  # a part of ALIT
        assert parameters(config) == pytest.approx(SIZE, rel=0.1)
    assert image_size(config) == 32
    assert config.optim == replace(BENCH[0].optim, lr=config.optim.lr)
    assert config.augment == BENCH[0].augment
    assert getattr(config.loss, "networks", ("squeezenet",)) == ("squeezenet",)


def test_every_row_sees_as_many_images() -> None:
    seen = {config.preset: config.run.steps * config.run.batch_size for config in BENCH}
    seen.pop("alit-vqgan-bench")  # on top
    assert seen.pop("alit-codes-bench") + seen.pop("alit-pixels-bench") == IMAGES
    assert set(seen.values()) == {IMAGES}


def test_no_prior_and_the_paper_s_share_of_numbers() -> None:
    model = BENCH[0].model
    assert (model.prior, model.vqgan.grid_size**2, model.max_tokens) == ("none", 64, 64)
    assert 0.6 < model.max_tokens * model.token_dim / (3 * 32 * 32) < 0.7
