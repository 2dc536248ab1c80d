"""Named starting points of ``dove train``. Imports no torch."""

from dataclasses import replace

from dove.config import (
    BackboneConfig,
    DoveConfig,
    DoveLossConfig,
    DoveTrainConfig,
    OptimConfig,
    PrefixLossConfig,
    PrefixTrainConfig,
    RunConfig,
    TrainConfig,
    VQGANConfig,
    VQGANLossConfig,
    VQGANTrainConfig,
)
from dove.errors import UserError

TINY_VQGAN = VQGANConfig(
    image_size=64,
    patch_size=4,
    block_out_channels=(48, 96),
    layers_per_block=1,
    latent_channels=160,
    codebook_size=1024,
    norm_groups=16,
    linear_shortcut=True,
)
TINY_BACKBONE = BackboneConfig(
    hidden_size=192,
    num_layers=3,
    num_heads=4,
    intermediate_size=768,
    max_positions=256,
    initializer_range=0.05,
)
PYTHIA_14M = BackboneConfig(hidden_size=128, num_layers=6, num_heads=4, intermediate_size=512)

TINY_OPTIM = OptimConfig(lr=3e-4, warmup_steps=100, betas=(0.9, 0.98), ema_decay=0.995)
TINY_RUN = RunConfig(steps=2000, batch_size=32, sample_every=250, checkpoint_every=100)
TINY_MODEL = DoveConfig(
    vqgan=TINY_VQGAN,
    generator=TINY_BACKBONE,
    decoder=TINY_BACKBONE,
    max_tokens=64,
    token_dim=192,
    token_basis="bands",
    eos_head="quality",
)

DOVE_BASE = DoveTrainConfig(preset="dove-base")
DOVE_TINY = PrefixTrainConfig(
    preset="dove-tiny",
    model=TINY_MODEL,
    loss=PrefixLossConfig(gan=0.0, perceptual_network="squeezenet"),
    optim=TINY_OPTIM,
    run=TINY_RUN,
    start="components",
)
DOVE_TINY_PAPER = DoveTrainConfig(
    preset="dove-tiny-paper",
    model=replace(TINY_MODEL, eos_head="binary"),
    loss=DoveLossConfig(gan=0.0, perceptual_network="squeezenet"),
    optim=TINY_OPTIM,
    run=TINY_RUN,
    start="components",
)

PRESETS: dict[str, TrainConfig] = {
    "dove-base": DOVE_BASE,
    "dove-14m": replace(
        DOVE_BASE,
        preset="dove-14m",
        model=DoveConfig(generator=PYTHIA_14M, decoder=PYTHIA_14M, token_dim=128),
        pretrained_backbone="EleutherAI/pythia-14m",
    ),
    "dove-tiny": DOVE_TINY,
    "dove-tiny-paper": DOVE_TINY_PAPER,
    "vqgan-tiny": VQGANTrainConfig(
        preset="vqgan-tiny",
        model=TINY_VQGAN,
        loss=VQGANLossConfig(gan=0.0, perceptual_network="squeezenet"),
        optim=TINY_OPTIM,
        run=TINY_RUN,
        start="components",
    ),
}
"""Every preset by name."""


def get_preset(name: str) -> TrainConfig:
    """The preset of that name.

    Raises:
        UserError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
