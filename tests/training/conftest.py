"""Trainings that take a second: 16 px images, a few steps."""

from dataclasses import replace
from pathlib import Path

import pytest
from small import MODEL, VQGAN, paint, shrunk

from dove.training.config import DoveTrainConfig, PrefixTrainConfig, TokenizerTrainConfig, TrainConfig, VQGANTrainConfig
from dove.training.presets import PRESETS

QUALITY_MODEL = replace(MODEL, eos_head="quality", quality_target=20.0)


def shrink(config: TrainConfig, data: Path, output: Path) -> TrainConfig:
    """The same recipe at a size for tests, in fp32, without a perceptual network."""
    assert isinstance(config, TokenizerTrainConfig | VQGANTrainConfig)
    model = {PrefixTrainConfig: QUALITY_MODEL, DoveTrainConfig: MODEL, VQGANTrainConfig: VQGAN}[type(config)]
    return shrunk(config, model, data, output, steps=6, sample_every=3)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 smooth coloured pictures of 20 px."""
    return paint(tmp_path_factory.mktemp("pictures") / "photos", 24)


@pytest.fixture
def tiny_training(photos: Path, tmp_path: Path) -> DoveTrainConfig:
    config = shrink(PRESETS["dove-tiny-paper"], photos, tmp_path / "run")
    assert isinstance(config, DoveTrainConfig)
    return config


@pytest.fixture
def prefix_training(photos: Path, tmp_path: Path) -> PrefixTrainConfig:
    """DOVE+ without networks."""
    config = shrink(PRESETS["dove-tiny"], photos, tmp_path / "prefix")
    assert isinstance(config, PrefixTrainConfig)
    return config


@pytest.fixture
def vqgan_training(photos: Path, tmp_path: Path) -> VQGANTrainConfig:
    config = shrink(PRESETS["vqgan-tiny"], photos, tmp_path / "vqgan")
    assert isinstance(config, VQGANTrainConfig)
    return config
