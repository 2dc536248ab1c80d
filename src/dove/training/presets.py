"""Named starting points of ``dove train``. Imports no torch."""

from dataclasses import fields, replace

from dove.baselines.config import ALITS, TITOKS, MaskgitVQGANConfig
from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.data.config import AugmentConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig, QueryConfig
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
)
from dove.training.bench_presets import BENCH
from dove.training.bench_presets import DOVE as SMALL_MODEL
from dove.training.config import (
    AlignConfig,
    DoveLossConfig,
    DoveTrainConfig,
    OptimConfig,
    PrefixLossConfig,
    PrefixTrainConfig,
    RunConfig,
    TrainConfig,
    VQGANLossConfig,
    VQGANTrainConfig,
)
from dove.training.query_config import (
    QDoveLossConfig,
    QDoveTrainConfig,
    QueryDataConfig,
    QueryPrefixLossConfig,
    QueryPrefixTrainConfig,
)

TINY_VQGAN = VQGANConfig(
    image_size=64,
    patch_size=4,
    block_out_channels=(64, 128),
    layers_per_block=1,
    latent_channels=96,
    codebook_size=1024,
    norm_groups=16,
)
TINY_BACKBONE = BackboneConfig(
    hidden_size=192,
    num_layers=4,
    num_heads=6,
    intermediate_size=768,
    max_positions=256,
    initializer_range=0.05,
)
PYTHIA_14M = BackboneConfig(hidden_size=128, num_layers=6, num_heads=4, intermediate_size=512)

# The cells of the VQGAN's grid as patches: convolutions at 16 x 16 alone.
PATCH_VQGAN = VQGANConfig(patch_size=16, block_out_channels=(128,), layers_per_block=1, latent_channels=256)

TINY_OPTIM = OptimConfig(lr=3e-4, warmup_steps=100, betas=(0.9, 0.98), ema_decay=0.995)
TINY_RUN = RunConfig(steps=2000, batch_size=32, sample_every=250, checkpoint_every=100)
TINY_PATCHES = VQGANConfig(
    image_size=64, patch_size=8, block_out_channels=(64,), layers_per_block=2, latent_channels=192
)
# 192 x 64 coefficients are all of a picture's, so 64 tokens hold it exactly.
TINY_MODEL = DoveConfig(
    autoencoder="patches",
    vqgan=TINY_PATCHES,
    generator=TINY_BACKBONE,
    decoder=TINY_BACKBONE,
    max_tokens=64,
    token_dim=256,
    prior="cosines",
    prior_numbers=192,
    eos_head="quality",
    quality_target=25.0,
    quality_perceptual="squeezenet+efficientnet-lite0",
)
TINY_PREFIXES = PrefixLossConfig(
    perceptual=2.0,
    perceptual_network="squeezenet+efficientnet-lite0",
    least_mse=5e-5,
    view=8,
    align=AlignConfig(network="efficientnet-lite0", enlarge=2),
)

TINY_QUERY = QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=32)

AMUSED = VQGANConfig(pixel_range="0..1")

# Table 7: 20 epochs of ImageNet-1K, on two processes with 24 images each. Appendix A.2 names crops and grey, no mirroring.
DOVE_BASE = DoveTrainConfig(
    preset="dove-base",
    model=DoveConfig(vqgan=AMUSED),
    augment=AugmentConfig(flip=False),
    run=RunConfig(steps=0, epochs=20.0, checkpoint_every=2000),
)
DOVE_TINY = PrefixTrainConfig(
    preset="dove-tiny",
    model=TINY_MODEL,
    loss=TINY_PREFIXES,
    optim=OptimConfig(lr=1e-3, warmup_steps=300, decay_share=0.2, betas=(0.9, 0.98), ema_decay=0.9995),
    augment=AugmentConfig(crop_probability=0.3, grayscale_probability=0.0),
    run=RunConfig(steps=48_000, batch_size=32, holdout=512, sample_every=1000, checkpoint_every=400),
    start="random",
)
# The paper starts from a reconstruction that was learned before: pass --checkpoint for another one.
DOVE_TINY_PAPER = DoveTrainConfig(
    preset="dove-tiny-paper",
    model=replace(TINY_MODEL, eos_head="binary", quality_perceptual="none"),
    loss=DoveLossConfig(gan=0.0, perceptual_network="squeezenet"),
    optim=TINY_OPTIM,
    run=TINY_RUN,
    start="checkpoint",
    checkpoint="dove-tiny",
)

# All three start from the weights of a DOVE: pass --checkpoint. The small one has no prior, whose share of every token would
# say the same whatever is asked: it starts from dove-plus-bench.
QDOVE_BODY = replace(SMALL_MODEL, eos_head="quality", quality_target=20.0)
QDOVE_TINY = QueryPrefixTrainConfig(
    preset="qdove-tiny",
    model=QDoveConfig(
        **{setting.name: getattr(QDOVE_BODY, setting.name) for setting in fields(DoveConfig)}, query=TINY_QUERY
    ),
    loss=QueryPrefixLossConfig(
        perceptual=0.0,
        perceptual_network="none",
        cap_shares=(0.5, 0.35, 0.15),
        irrelevant=0.02,
        grounding=1.0,
    ),
    optim=OptimConfig(lr=5e-4, warmup_steps=200, decay_share=0.2, betas=(0.9, 0.98), ema_decay=0.999),
    run=RunConfig(steps=15_600, batch_size=32, holdout=512, sample_every=625, checkpoint_every=125),
    start="checkpoint",
    queries=QueryDataConfig(kind="scenes"),
)
QDOVE_TINY_PAPER = QDoveTrainConfig(
    preset="qdove-tiny-paper",
    model=replace(QDOVE_TINY.model, eos_head="binary"),
    loss=QDoveLossConfig(gan=0.0, perceptual_network="squeezenet"),
    optim=TINY_OPTIM,
    run=TINY_RUN,
    start="checkpoint",
    queries=QueryDataConfig(kind="mosaics"),
)
# Table 7: five epochs more, of images with queries.
QDOVE_BASE = QDoveTrainConfig(
    preset="qdove-base",
    model=QDoveConfig(vqgan=AMUSED, query=QueryConfig(null="word")),
    start="checkpoint",
    pretrained_words="EleutherAI/pythia-70m",
    run=RunConfig(steps=0, epochs=5.0, checkpoint_every=2000),
)

BASELINES: tuple[TrainConfig, ...] = (
    MaskgitVQGANTrainConfig(preset="maskgit-vqgan", model=MaskgitVQGANConfig()),
    *(
        kind(preset=f"{name}-{stage}", model=model)
        for name, model in TITOKS.items()
        for stage, kind in (("codes", TiTokCodesTrainConfig), ("pixels", TiTokPixelsTrainConfig))
    ),
    *(
        kind(preset=f"{name}-{stage}", model=model)
        for name, model in ALITS.items()
        for stage, kind in (("codes", ALITCodesTrainConfig), ("pixels", ALITPixelsTrainConfig))
    ),
)
"""Trainings of the systems that DOVE is compared with; two-stage ones have a preset for each stage."""

PRESETS: dict[str, TrainConfig] = {
    "dove-base": DOVE_BASE,
    "dove-base-patch": PrefixTrainConfig(
        preset="dove-base-patch",
        model=DoveConfig(vqgan=PATCH_VQGAN, eos_head="quality"),
        start="random",
    ),
    "dove-14m": replace(
        DOVE_BASE,
        preset="dove-14m",
        model=DoveConfig(vqgan=AMUSED, generator=PYTHIA_14M, decoder=PYTHIA_14M, token_dim=128),
        pretrained_backbone="EleutherAI/pythia-14m",
    ),
    "dove-tiny": DOVE_TINY,
    "dove-tiny-gaussian": replace(
        DOVE_TINY,
        preset="dove-tiny-gaussian",
        model=replace(TINY_MODEL, token_kind="gaussian"),
        start="checkpoint",
        checkpoint="dove-tiny",
    ),
    "dove-tiny-paper": DOVE_TINY_PAPER,
    **{config.preset: config for config in (QDOVE_TINY, QDOVE_TINY_PAPER, QDOVE_BASE)},
    "vqgan-tiny": VQGANTrainConfig(
        preset="vqgan-tiny",
        model=TINY_VQGAN,
        loss=VQGANLossConfig(gan=0.0, perceptual_network="squeezenet"),
        optim=TINY_OPTIM,
        run=TINY_RUN,
    ),
    **{config.preset: config for config in (*BASELINES, *BENCH)},
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
