"""A model, pictures and a training that take next to no time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.training.config import AlignConfig, DoveTrainConfig, PrefixLossConfig, TokenizerTrainConfig, VQGANTrainConfig
from dove.training.presets import PRESETS

BACKBONE = BackboneConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64)
VQGAN = VQGANConfig(
    image_size=16,
    patch_size=2,
    block_out_channels=(8, 16),
    layers_per_block=1,
    latent_channels=8,
    codebook_size=16,
    norm_groups=4,
)
MODEL = DoveConfig(vqgan=VQGAN, generator=BACKBONE, decoder=BACKBONE, max_tokens=16, token_dim=32)


def paint(folder: Path, count: int) -> Path:
    """A folder of smooth coloured pictures of 20 px."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        corners = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        corners.resize((20, 20), Image.Resampling.BICUBIC).save(folder / f"{number:04}.png")
    return folder


def shrunk(
    config: TokenizerTrainConfig | VQGANTrainConfig,
    model: DoveConfig | VQGANConfig,
    data: Path,
    output: Path,
    **run: Any,
) -> TokenizerTrainConfig | VQGANTrainConfig:
    """The same recipe for a tiny model, in fp32, without a perceptual network; ``run`` has the settings of the run."""
    loss = replace(config.loss, perceptual=0.0, perceptual_network="none")
    if isinstance(loss, PrefixLossConfig):
        loss = replace(loss, align=AlignConfig())
    if isinstance(config, TokenizerTrainConfig):
        config = replace(config, start="random", model=model)
    tiny = {
        "epochs": 0.0,
        "batch_size": 4,
        "precision": "fp32",
        "threads": 1,
        "holdout": 4,
        "log_every": 1,
        "checkpoint_every": 2,
    }
    return replace(
        config,
        data=str(data),
        output=str(output),
        model=model,
        loss=loss,
        optim=replace(config.optim, warmup_steps=2),
        run=replace(config.run, **tiny, **run),
    )


def settings(data: Path, output: Path, steps: int) -> DoveTrainConfig:
    """The paper's recipe, tiny, from random weights, with a checkpoint at every second step."""
    config = PRESETS["dove-tiny-paper"]
    assert isinstance(config, DoveTrainConfig)
    config = shrunk(config, MODEL, data, output, steps=steps, sample_every=10)
    assert isinstance(config, DoveTrainConfig)
    return config
