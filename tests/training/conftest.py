"""Trainings that take a second: 16 px images, a few steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dove.config import (
    BackboneConfig,
    DoveConfig,
    DoveTrainConfig,
    PrefixTrainConfig,
    TokenizerTrainConfig,
    TrainConfig,
    VQGANConfig,
    VQGANTrainConfig,
)
from dove.presets import PRESETS

VQGAN = VQGANConfig(
    image_size=16,
    patch_size=2,
    block_out_channels=(8, 16),
    layers_per_block=1,
    latent_channels=8,
    codebook_size=16,
    norm_groups=4,
    linear_shortcut=True,
)
BACKBONE = BackboneConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, max_positions=64)
MODEL = DoveConfig(vqgan=VQGAN, generator=BACKBONE, decoder=BACKBONE, max_tokens=16, token_dim=32, token_basis="bands")
QUALITY_MODEL = replace(MODEL, eos_head="quality", quality_target=20.0)


def shrink(config: TrainConfig, data: Path, output: Path) -> TrainConfig:
    """The same recipe at a size for tests, in fp32, without a perceptual network."""
    assert isinstance(config, TokenizerTrainConfig | VQGANTrainConfig)
    model = {PrefixTrainConfig: QUALITY_MODEL, DoveTrainConfig: MODEL, VQGANTrainConfig: VQGAN}[type(config)]
    run = replace(
        config.run,
        steps=6,
        batch_size=4,
        precision="fp32",
        threads=1,
        holdout=4,
        log_every=1,
        sample_every=3,
        checkpoint_every=2,
    )
    return replace(
        config,
        data=str(data),
        output=str(output),
        model=model,
        loss=replace(config.loss, perceptual=0.0, perceptual_network="none"),
        optim=replace(config.optim, warmup_steps=2),
        run=run,
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 smooth coloured pictures of 20 px."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(24):
        corners = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        corners.resize((20, 20), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def tiny_training(photos: Path, tmp_path: Path) -> DoveTrainConfig:
    config = shrink(PRESETS["dove-tiny-paper"], photos, tmp_path / "run")
    assert isinstance(config, DoveTrainConfig)
    return config


@pytest.fixture
def prefix_training(photos: Path, tmp_path: Path) -> PrefixTrainConfig:
    config = shrink(PRESETS["dove-tiny"], photos, tmp_path / "prefix")
    assert isinstance(config, PrefixTrainConfig)
    return config


@pytest.fixture
def vqgan_training(photos: Path, tmp_path: Path) -> VQGANTrainConfig:
    config = shrink(PRESETS["vqgan-tiny"], photos, tmp_path / "vqgan")
    assert isinstance(config, VQGANTrainConfig)
    return config
