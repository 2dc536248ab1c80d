"""Settings as frozen dataclasses. Imports no torch, so that ``dove --help`` answers at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from dove.data.config import AugmentConfig
from dove.errors import UserError
from dove.losses.config import ReconstructionWeights
from dove.models.discriminator_config import DiscriminatorConfig
from dove.models.query_config import QueryConfig, RegionConfig


def added(default: Any) -> Any:
    """A setting that checkpoints written before it existed may lack: they get the default."""
    return field(default=default, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Image ends. The defaults are the "amused" VQGAN that the paper starts from."""

    image_size: int = 256
    """Side of the square input, in pixels."""
    patch_size: int = 1
    """Factor of the pixel unshuffle in front of the convolutions; 1 convolves at full resolution."""
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512, 768)
    """Channels by resolution level; every level but the last halves the side."""
    layers_per_block: int = 2
    """Residual blocks per level."""
    latent_channels: int = 64
    """Channels between the convolutions and the codebook projection."""
    embedding_dim: int | None = None
    """Width C of a latent and of a codebook entry; None for ``latent_channels``."""
    codebook_size: int = 8192
    """Number V of codebook entries."""
    norm_groups: int = 32
    """Groups of the group norms."""
    mid_attention: bool = False
    """Self-attention at the lowest resolution."""
    linear_shortcut: bool = False
    """A linear patch embedding beside the convolutions and its inverse beside the deconvolutions, so that the
    convolutions only learn what a linear map cannot do."""

    @property
    def channels(self) -> int:
        """Width C of a latent."""
        return self.embedding_dim or self.latent_channels

    @property
    def grid_size(self) -> int:
        """Side h = w of the latent grid."""
        return self.image_size // self.patch_size // 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A GPT-NeoX stack. The defaults are Pythia-70M."""

    hidden_size: int = 512
    """Width of the residual stream."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 8
    """Attention heads."""
    intermediate_size: int = 2048
    """Width inside the MLPs."""
    rotary_fraction: float = 0.25
    """Share of each head's dimensions that rotary positions turn."""
    max_positions: int = 2048
    """Positions the rotary table is made for."""
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn weights."""


@dataclass(frozen=True, kw_only=True)
class DoveConfig:
    """The whole tokenizer. The defaults are the paper's sizes."""

    vqgan: VQGANConfig = field(default_factory=VQGANConfig)
    generator: BackboneConfig = field(default_factory=BackboneConfig)
    decoder: BackboneConfig = field(default_factory=BackboneConfig)
    max_tokens: int = 256
    """Capacity K. The token decoder turns position i into grid position i, so K is the number of grid positions."""
    token_dim: int = 512
    """Width D of a token."""
    token_kind: Literal["point", "gaussian"] = added("point")
    """Tokens as vectors, or as means and variances of a Gaussian (Appendix D), of which inference takes the mean."""
    token_basis: Literal["grid", "bands", "cosines"] = "grid"
    """What position i of the token decoder's output is: grid cell i, as in the paper, or band i, the i-th most important
    group of cosine coefficients: of the latents' grid ("bands") or of the whole picture ("cosines", for latents that start
    as cosine coefficients of their cells, with ``start`` components). With either, timestamp i also reads band i."""
    token_decoder: Literal["all", "kept"] = added("all")
    """Positions that the token decoder's blocks run on: all K, as in the paper, or those of the kept tokens alone, which
    the others read once at the end, so that few tokens are decoded in little time."""
    eos_head: Literal["binary", "vocab", "quality"] = "binary"
    """One EOS logit per position; the backbone's vocabulary, of which EOS is one word; or a prediction of the PSNR
    that the tokens so far reach, with EOS where it meets ``quality_target``."""
    quality_target: float = 24.0
    """PSNR in dB at which the ``quality`` head ends a sequence."""
    quality_perceptual: Literal["none", "squeezenet", "lpips"] = added("none")
    """Network whose perceptual distance the ``quality`` head predicts beside the PSNR."""
    vocab_size: int = 50304
    """Words of the ``vocab`` head."""
    eos_token_id: int = 0
    """The word of the ``vocab`` head that ends a sequence."""


@dataclass(frozen=True, kw_only=True)
class QDoveConfig(DoveConfig):
    """A tokenizer that takes queries."""

    query: QueryConfig = field(default_factory=QueryConfig)
    """The words."""
    region: RegionConfig = field(default_factory=RegionConfig)
    """How a query picks a region that the tokens describe first."""

    def __post_init__(self) -> None:
        if self.region.kind != "none" and self.token_basis == "grid":
            raise UserError("--model.region.kind rectangle needs --model.token-basis bands or cosines")
        if self.region.kind != "none" and self.token_decoder != "all":
            raise UserError("--model.region.kind rectangle needs --model.token-decoder all")


@dataclass(frozen=True, kw_only=True)
class ReconstructionLossConfig(ReconstructionWeights):
    """Weights and networks of Eq. 2. A weight of 0 leaves its term out, with no network loaded or trained for it."""

    perceptual_network: Literal["none", "squeezenet", "lpips"] = "lpips"
    """The network behind the perceptual distance."""
    perceptual_weights: str | None = None
    """File with that network's weights; None downloads them where the network has a home."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        if self.perceptual and self.perceptual_network == "none":
            raise UserError(
                f"loss.perceptual={self.perceptual} needs a network; pass --loss.perceptual 0 "
                "or --loss.perceptual-network squeezenet"
            )


@dataclass(frozen=True, kw_only=True)
class CodebookLossConfig:
    """What trainings with a codebook in the data path have."""

    codebook: float = 1.0
    """Weight of the codebook and commitment loss."""
    restart_after: int = 20
    """Steps without use after which a codebook entry moves to a latent of the batch; 0 never moves any."""


@dataclass(frozen=True, kw_only=True)
class VQGANLossConfig(CodebookLossConfig, ReconstructionLossConfig):
    """Losses of the VQGAN stage."""

    continuous: float = 0.5
    """Share of the images decoded from the latents themselves instead of from their codebook entries. DOVE decodes
    continuous latents, so its VQGAN has to know both."""


@dataclass(frozen=True, kw_only=True)
class TokenizerLossConfig(ReconstructionLossConfig):
    """Eq. 2 and the prior of the tokens."""

    kl: float = 1e-4
    """Weight of the KL divergence of Gaussian tokens from the standard normal distribution, per dimension."""


@dataclass(frozen=True, kw_only=True)
class DoveLossConfig(TokenizerLossConfig):
    """Eq. 2 to 4."""

    rec: float = 1.0
    """lambda_rec."""
    eos: float = 0.05
    """lambda_eos at the end of its ramp."""
    eos_warmup_steps: int = 300
    """Steps over which lambda_eos rises from 0."""
    threshold_window: int = 100
    """Steps over which the threshold of Eq. 3 averages L_rec."""


@dataclass(frozen=True, kw_only=True)
class PrefixLossConfig(TokenizerLossConfig):
    """Eq. 2 at random lengths, and the error of the predicted quality."""

    quality: float = 0.1
    """Weight of the squared error, in bels (10 dB), of the PSNR that the ``quality`` head predicts."""
    log_uniform: float = 0.5
    """Share of the prefixes cut at a log-uniform length, which is short more often."""
    prefixes_per_image: int = 1
    """Prefixes that every image is rebuilt from in a step; it is encoded once for all of them."""
    whole: float = added(0.0)
    """Share of the prefixes that are the whole sequence; what the two shares leave is cut uniformly."""
    average: Literal["arithmetic", "root", "geometric"] = added("arithmetic")
    """How the reconstruction losses of a batch become one: their mean, which the shortest prefixes dominate; the logarithm
    of their geometric mean, in which a gain of 1% counts alike at every length; or, between the two, the logarithm of the
    mean of their square roots."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = {"log_uniform": self.log_uniform, "whole": self.whole}
        if min(shares.values()) < 0 or sum(shares.values()) > 1:
            named = ", ".join(f"loss.{name}={share}" for name, share in shares.items())
            raise UserError(f"{named} are shares of the prefixes; pass numbers from 0 on that sum to at most 1")
        if self.average != "arithmetic" and self.gan:
            raise UserError(
                f"loss.average={self.average} needs losses above 0, and the adversarial term is not: pass --loss.gan 0, or "
                "arithmetic"
            )
        if self.prefixes_per_image < 1:
            raise UserError(f"loss.prefixes_per_image={self.prefixes_per_image} leaves nothing; pass at least 1")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-4
    """Peak learning rate."""
    final_lr: float = 0.0
    """Learning rate at the last step."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    discriminator_lr: float = 1e-4
    """Constant learning rate of the discriminator's own AdamW."""
    ema_decay: float = 0.999
    """Decay of the weights' moving average, which is what gets saved as the model."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, how large, how often."""

    steps: int = 100_000
    batch_size: int = 24
    """Images of one forward pass on one process."""
    accumulate: int = 1
    """Batches of a step; their gradients are averaged, so that n batches equal one n times as large."""
    sharding: Literal["none", "fsdp"] = added("none")
    """Whether every process holds everything (DDP), or weights, gradients and the optimizer's state are cut up between the
    processes (FSDP2), for models that are too large to hold."""
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "bf16"
    workers: int = 0
    """Loader processes; 0 loads in the training process."""
    shuffle_blocks: int = 0
    """Row groups of parquet files, or .tar shards, that are shuffled together while all of them come in a random order, for
    data that neither fit into memory nor lie on a fast disk; 0 shuffles all images."""
    threads: int | None = None
    """CPU threads of the training process; None leaves it to torch."""
    holdout: int = 256
    """Images at the end of the source that are kept out of training, for the curves and sample pictures."""
    log: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """What shows the curves; metrics.jsonl and sample pictures are written in any case. wandb stays offline unless the
    environment's WANDB_MODE says otherwise."""
    log_every: int = 20
    """Steps between lines of metrics."""
    sample_every: int = 500
    """Steps between sample pictures and held-out measurements."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last one is always written."""
    keep_checkpoints: int = 2
    """Checkpoints kept for resuming."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What an infinite or undefined loss or gradient does: stop the run, or leave out that update and count it. Either way
    the batch is named in the output folder."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"run.{name}={getattr(self, name)} must be at least 1")
        if self.shuffle_blocks < 0:
            raise UserError(f"run.shuffle_blocks={self.shuffle_blocks} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training has."""

    preset: str
    """Name of the preset that the other settings started from."""
    data: str = ""
    """Training images: a folder, parquet, WebDataset shards, or a hub dataset id."""
    output: str = ""
    """Folder for the checkpoints, the model, metrics and pictures."""
    resume: Literal["auto", "never"] = "auto"
    """Go on from the last checkpoint in the output folder, or insist on an empty one."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, kw_only=True)
class VQGANTrainConfig(TrainConfig):
    """The VQGAN stage."""

    model: VQGANConfig = field(default_factory=VQGANConfig)
    loss: VQGANLossConfig = field(default_factory=VQGANLossConfig)
    start: Literal["random", "components"] = "random"
    """Random weights, or the linear shortcut set to principal components of the training images."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainConfig(TrainConfig):
    """The whole tokenizer, all parts together, by whatever recipe."""

    model: DoveConfig = field(default_factory=DoveConfig)
    start: Literal["random", "components", "pretrained", "checkpoint"] = "pretrained"
    """Random weights; a closed-form start from components of the training images; a language model and a VQGAN; or
    another tokenizer."""
    checkpoint: str = ""
    """Model folder or shipped name of that tokenizer, for start=checkpoint."""
    pretrained_backbone: str = "EleutherAI/pythia-70m"
    """Folder or hub id of the language model, for start=pretrained."""
    pretrained_vqgan: str = "mao1207/vqvae-amused"
    """Folder or hub id of the diffusers VQModel, for start=pretrained."""
    vqgan_checkpoint: str | None = None
    """Model folder of a VQGAN stage, whose weights the image ends take, whatever the start of the rest."""


@dataclass(frozen=True, kw_only=True)
class DoveTrainConfig(TokenizerTrainConfig):
    """The paper's recipe: Table 1, Eq. 2 to 4."""

    loss: DoveLossConfig = field(default_factory=DoveLossConfig)

    def __post_init__(self) -> None:
        if self.model.eos_head == "quality":
            raise UserError("the paper's recipe trains an EOS probability; pass --model.eos-head binary or vocab")


@dataclass(frozen=True, kw_only=True)
class PrefixTrainConfig(TokenizerTrainConfig):
    """Random prefixes and a predicted quality in place of Eq. 3."""

    loss: PrefixLossConfig = field(default_factory=PrefixLossConfig)

    def __post_init__(self) -> None:
        if self.model.eos_head != "quality":
            raise UserError("training on random prefixes needs --model.eos-head quality, which decides the lengths")
        network = self.loss.perceptual_network if self.loss.perceptual else "none"
        if self.model.quality_perceptual not in ("none", network):
            raise UserError(
                f"--model.quality-perceptual {self.model.quality_perceptual} is taught by the perceptual loss, whose "
                f"network is {network}; pass --loss.perceptual-network {self.model.quality_perceptual} with a weight, or "
                "--model.quality-perceptual none"
            )
