"""Trainings of the bench: every system of the paper at 32 px and about 1.5 million parameters. Imports no torch.

All rows have a grid of 8 x 8 cells of 4 px and so K = 64, no prior, the same images with the same augmentation, AdamW, and
SqueezeNet as the only frozen network. A row sees 200,000 images; ALIT's are divided between its two stages, and those of the
VQGAN that it builds on come on top.
"""

from dataclasses import replace

from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig, TransformerConfig
from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.data.config import AugmentConfig
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    QuantizedLossConfig,
    TiTokTrainConfig,
)
from dove.training.config import (
    DoveLossConfig,
    DoveTrainConfig,
    OptimConfig,
    PrefixLossConfig,
    PrefixTrainConfig,
    ReconstructionLossConfig,
    RunConfig,
    TrainConfig,
    VQGANLossConfig,
    VQGANTrainConfig,
)

# 64 tokens of 32 numbers are two thirds of the picture's 3,072, the paper's share: 256 tokens of 512 numbers for 256 px.
TOKEN_DIM = 32

BACKBONE = BackboneConfig(
    hidden_size=128, num_layers=3, num_heads=4, intermediate_size=512, max_positions=128, initializer_range=0.05
)
# The paper's layout for all rows of DOVE, so that they differ in losses and kind of tokens alone. autoencoder="patches" would
# not be the paper's system; instead the VQGAN has few channels, which leaves most of the parameters to the transformers.
DOVE = DoveConfig(
    vqgan=VQGANConfig(
        image_size=32,
        patch_size=2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=48,
        codebook_size=1024,
        norm_groups=8,
    ),
    generator=BACKBONE,
    decoder=BACKBONE,
    max_tokens=64,
    token_dim=TOKEN_DIM,
)
VQGAN = replace(DOVE.vqgan, block_out_channels=(48, 96), latent_channels=64, norm_groups=16)
CODES_VQGAN = MaskgitVQGANConfig(
    image_size=32,
    hidden_channels=16,
    channel_mult=(1, 2, 4),
    num_res_blocks=1,
    latent_channels=32,
    codebook_size=512,
    norm_groups=8,
)
ALIT = ALITConfig(
    transformer=TransformerConfig(width=96, num_layers=4, num_heads=4),
    tokens_per_rollout=8,
    patch_size=4,
    codebook_size=1024,
    vqgan=CODES_VQGAN,
)

BATCH = 32
IMAGES = 200_000
AUGMENT = AugmentConfig(crop_probability=0.3, grayscale_probability=0.0)
PIXELS = ReconstructionLossConfig(gan=0.0, perceptual_network="squeezenet")
QUANTIZED = QuantizedLossConfig(gan=0.0, perceptual_network="squeezenet")
OPTIM = OptimConfig(lr=1e-3, warmup_steps=200, betas=(0.9, 0.98), ema_decay=0.999)
# At 1e-3 small codebooks in front of transformers have collapsed to a few entries.
QUANTIZED_OPTIM = replace(OPTIM, lr=3e-4)


def bench_run(images: int = IMAGES) -> RunConfig:
    """Settings of a run that sees so many images."""
    return RunConfig(steps=images // BATCH, batch_size=BATCH, holdout=512, sample_every=500, checkpoint_every=250)


def titok(num_tokens: int) -> TiTokTrainConfig:
    """TiTok by the single-stage recipe with so many tokens, from an eighth to half of the grid's cells."""
    model = TiTokConfig(
        transformer=TransformerConfig(width=112, num_layers=5, num_heads=4),
        num_tokens=num_tokens,
        image_size=32,
        patch_size=4,
        codebook_size=1024,
        projection="per-token",
        head="pixels",
    )
    return TiTokTrainConfig(
        preset=f"titok-{num_tokens}-bench",
        model=model,
        loss=QUANTIZED,
        optim=QUANTIZED_OPTIM,
        augment=AUGMENT,
        run=bench_run(),
    )


# Table 1 and Eq. 2 to 4, but for the adversarial term, whose weight of 5e-10 drowns in rounding. From random weights,
# reconstruction from all tokens has to be learned first: with lambda_eos from a tenth of the run on, lengths fell to 7 of 64
# tokens, and all tokens ended at 20.2 dB.
DOVE_BENCH = DoveTrainConfig(
    preset="dove-bench",
    model=DOVE,
    loss=DoveLossConfig(gan=0.0, perceptual_network="squeezenet", eos_delay=0.4, eos_ramp=0.2),
    optim=OPTIM,
    augment=AUGMENT,
    run=bench_run(),
    start="random",
)
BENCH: tuple[TrainConfig, ...] = (
    DOVE_BENCH,
    replace(DOVE_BENCH, preset="dove-gaussian-bench", model=replace(DOVE, token_kind="gaussian")),
    # Without alignment: it would bring a second use of a frozen network, which the other rows do not have. Every step draws
    # lengths up to 64: where most steps saw few tokens, the last 48 learned nothing (18.5 dB with 16, 18.6 with 64).
    PrefixTrainConfig(
        preset="dove-plus-bench",
        model=replace(DOVE, eos_head="quality", quality_target=20.0),
        loss=PrefixLossConfig(perceptual_network="squeezenet", caps=(64,), cap_shares=(1.0,)),
        optim=OPTIM,
        augment=AUGMENT,
        run=bench_run(),
        start="random",
    ),
    VQGANTrainConfig(
        preset="vqgan-bench",
        model=VQGAN,
        # As a tokenizer of its own it is decoded from codes alone.
        loss=VQGANLossConfig(gan=0.0, perceptual_network="squeezenet", continuous=0.0),
        optim=OPTIM,
        augment=AUGMENT,
        run=bench_run(),
    ),
    *(titok(num_tokens) for num_tokens in (8, 16, 32)),
    MaskgitVQGANTrainConfig(
        preset="alit-vqgan-bench",
        model=CODES_VQGAN,
        loss=QUANTIZED,
        optim=OPTIM,
        augment=AUGMENT,
        run=bench_run(IMAGES // 2),
    ),
    ALITCodesTrainConfig(
        preset="alit-codes-bench",
        model=ALIT,
        roll_outs="drawn",
        optim=QUANTIZED_OPTIM,
        augment=AUGMENT,
        run=bench_run(140_000),
    ),
    ALITPixelsTrainConfig(
        preset="alit-pixels-bench",
        model=ALIT,
        loss=PIXELS,
        optim=QUANTIZED_OPTIM,
        augment=AUGMENT,
        run=bench_run(60_000),
    ),
)
"""Every training, those that others build on before them."""
