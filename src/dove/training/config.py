"""Settings of trainings as frozen dataclasses. Imports no torch."""

import math
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from dove.config import DiscriminatorConfig, DoveConfig, VQGANConfig, added
from dove.data.config import AugmentConfig
from dove.errors import UserError
from dove.frozen.names import KNOWN_NETWORKS, is_network, split_perceptual


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Settings of losses, whose numbers are finite and at least 0."""

    section: ClassVar[str] = "loss"

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, float | int) and not 0 <= value < math.inf:  # NaN fails this, too
                raise UserError(f"{self.section}.{setting.name}={value} must be a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class ReconstructionLossConfig(LossConfig):
    """Weights and networks of Eq. 2. A weight of 0 leaves its term out, with no network loaded or trained for it."""

    mse: float = 1.0
    """Weight of the mean squared error."""
    perceptual: float = 0.1
    """Weight of the perceptual distance."""
    gan: float = 5e-10
    """Weight of the adversarial term; the paper keeps it this small against hallucinated detail."""
    perceptual_network: str = "lpips"
    """Network behind the perceptual distance: none, lpips, squeezenet, efficientnet-lite0, mobilenet-v2, timm:MODEL or
    transformers:MODEL; several joined by + give the mean of their distances."""
    perceptual_weights: str | None = None
    """Weights of lpips or squeezenet; None downloads the former and takes the file DOVE_SQUEEZENET names for the latter."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    @property
    def networks(self) -> tuple[str, ...]:
        """Frozen networks that the loss compares images by."""
        return split_perceptual(self.perceptual_network) if self.perceptual else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        split_perceptual(self.perceptual_network)
        if self.perceptual and self.perceptual_network == "none":
            raise UserError(
                f"loss.perceptual={self.perceptual} needs a network; pass --loss.perceptual 0 "
                "or --loss.perceptual-network squeezenet"
            )
        if self.perceptual_weights and not self.perceptual:
            raise UserError("loss.perceptual=0 takes no weights file; pass --loss.perceptual 1 or no weights")


@dataclass(frozen=True, kw_only=True)
class CodebookLossConfig(LossConfig):
    """Settings of trainings with a codebook in the data path."""

    codebook: float = 1.0
    """Weight of the codebook and commitment loss."""
    restart_after: int = 20
    """Batches without use, each of ``run.accumulate`` counted, after which a codebook entry moves to a latent of the last one;
    0 never moves any."""


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
    eos_delay: float = 0.1
    """Share of the run, from its first step, in which lambda_eos is 0: reconstruction first."""
    eos_ramp: float = 0.2
    """Share of the run over which lambda_eos then rises."""
    threshold_window: int = 100
    """Steps over which the threshold of Eq. 3 averages L_rec."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eos_delay + self.eos_ramp > 1:
            raise UserError(
                f"loss.eos_delay={self.eos_delay} and loss.eos_ramp={self.eos_ramp} are shares of the run; pass numbers "
                "from 0 on that sum to at most 1"
            )


@dataclass(frozen=True, kw_only=True)
class AlignConfig(LossConfig):
    """Alignment of hidden states and tokens with the features of a frozen network.

    It goes through linear heads that are thrown away after training.
    """

    section: ClassVar[str] = "loss.align"
    network: str = "none"
    """Frozen network: none, squeezenet, efficientnet-lite0, mobilenet-v2, timm:MODEL or transformers:MODEL."""
    weights: str | None = None
    """Weights file of squeezenet; None takes the file DOVE_SQUEEZENET names."""
    weight: float = 0.2
    """Weight of two cosine distances each: of the grid's hidden states to the last map, and of the kept timestamps' hidden
    states, averaged, to its mean."""
    tokens: float = 0.2
    """Weight of the cosine distance of the kept tokens' learned numbers, averaged, to its mean."""
    enlarge: int = 1
    """Factor by which images are enlarged in front of the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "none" and not is_network(self.network):
            raise UserError(f"unknown network loss.align.network={self.network}; choose none, {KNOWN_NETWORKS}")
        if self.enlarge < 1:
            raise UserError(f"loss.align.enlarge={self.enlarge} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PrefixLossConfig(TokenizerLossConfig):
    """Eq. 2 at random lengths with the logarithm of the squared error, the error of the predicted quality, and alignment."""

    mse: float = 0.5
    """Weight of the mean logarithm of the squared error, in which a gain of 1% counts alike at every length."""
    perceptual: float = 1.0
    """Weight of the perceptual distance."""
    gan: float = 0.0
    """Weight of the adversarial term."""
    least_mse: float = 2e-4
    """Added to the squared error in front of the logarithm, pixels in [-1, 1]: errors far below it teach little."""
    quality: float = 1.0
    """Weight of the squared errors of what the ``quality`` head predicts, in bels (powers of ten)."""
    caps: tuple[int, ...] = (4, 16, 64)
    """Greatest lengths: a step draws one and cuts its images at log-uniform lengths up to it, so that most steps run the
    transformers on few tokens."""
    cap_shares: tuple[float, ...] = (0.4, 0.35, 0.25)
    """Share of the steps with each of them."""
    view: int = 0
    """Pixels by which the perceptual network's view of both images is cut, at a random place and mirrored half of the time."""
    align: AlignConfig = field(default_factory=AlignConfig)

    @property
    def networks(self) -> tuple[str, ...]:
        """Frozen networks that the loss compares or aligns with."""
        aligned = () if self.align.network == "none" else (self.align.network,)
        return tuple(dict.fromkeys((*super().networks, *aligned)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.caps) != len(self.cap_shares) or not self.caps or min(self.caps) < 1:
            raise UserError(
                f"loss.caps={self.caps} and loss.cap_shares={self.cap_shares} must be as many, caps from 1 on"
            )
        if min(self.cap_shares) < 0 or abs(sum(self.cap_shares) - 1) > 1e-6:
            raise UserError(f"loss.cap_shares={self.cap_shares} must be shares that sum to 1")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up, then a constant learning rate, then a cosine down to the last step."""

    lr: float = 1e-4
    """Peak learning rate."""
    final_lr: float = 0.0
    """Learning rate that the schedule falls to, one step behind the last one."""
    warmup_steps: int = 500
    """Steps of linear warm-up. Not a share of the run: how long the optimizer's averages take to settle does not depend on
    how long the run is."""
    decay_share: float = 1.0
    """Share of the run, at its end, over which the learning rate falls: 1 from the end of the warm-up on. A run that is going
    to be made longer keeps its rate until then, with a share such as 0.2; 0 keeps it to the end."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Largest norm of the whole gradient, above 0."""
    discriminator_lr: float = 1e-4
    """Constant learning rate of the discriminator's own AdamW."""
    ema_decay: float = 0.999
    """Decay of the weights' moving average, which gets saved as the model; less in the first steps, so that random weights
    are soon forgotten."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay_share <= 1:
            raise UserError(f"optim.decay_share={self.decay_share} is a share of the run; pass a number from 0 to 1")
        for name in ("lr", "final_lr", "warmup_steps", "discriminator_lr", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:  # NaN fails this, too
                raise UserError(f"optim.{name}={getattr(self, name)} must be a number of at least 0")
        if self.clip_norm == 0:
            raise UserError("optim.clip_norm=0 lets no gradient through; pass a large number, such as 1e9, not to clip")
        for name, decays in (("betas", self.betas), ("ema_decay", (self.ema_decay,))):
            if not all(0 <= decay < 1 for decay in decays):
                raise UserError(f"optim.{name}={getattr(self, name)} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Length, batch and intervals of a run."""

    steps: int = 100_000
    """Updates of the whole run; 0 where ``epochs`` says how long it is."""
    epochs: float = 0.0
    """Passes over the training images, from which follow the steps: with the images of a batch, the batches of a step
    and the number of processes. 0 where ``steps`` says how long the run is."""
    batch_size: int = 24
    """Images of one forward pass on one process."""
    accumulate: int = 1
    """Batches of a step; their gradients are averaged, so that n batches equal one n times as large."""
    sharding: Literal["none", "fsdp"] = added("none")
    """none: every process holds everything (DDP); fsdp: weights, gradients and the optimizer's state are cut up between the
    processes (FSDP2), for models that are too large to hold."""
    activation_checkpointing: bool = added(False)
    """Keep of every block of the transformers and the VQGAN its input alone, and compute the block again in the backward pass:
    a third more arithmetic for a fraction of the memory."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the arithmetic; weights stay fp32. auto: bf16 on GPUs and on CPUs that have instructions for it, fp32 on
    other CPUs, where bf16 takes many times longer."""
    workers: int | None = None
    """Loader processes of each training process; 0 loads in the training process. None takes 0 without a GPU, and with one
    the CPU cores of each training process on this machine, at most 8."""
    shuffle_blocks: int = 0
    """Row groups of parquet files, or .tar shards, that are shuffled together while all of them come in a random order, for
    data that neither fit into memory nor lie on a fast disk; 0 shuffles all images."""
    threads: int | None = None
    """CPU threads of the training process; None leaves it to torch."""
    holdout: int = 256
    """Images at the end of the source that are kept out of training, for the curves and sample pictures."""
    log: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Viewer of the curves; metrics.jsonl and sample pictures are written in any case. wandb stays offline unless the
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
    """Reaction to an infinite or undefined loss or gradient: stop the run, or leave out that update and count it. Either way
    the batch is named in the output folder."""

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "accumulate": 1, "keep_checkpoints": 1, "workers": 0, "shuffle_blocks": 0}
        least |= {"seed": 0, "threads": 1, "log_every": 1, "sample_every": 1, "checkpoint_every": 1}
        for name, number in least.items():
            if (given := getattr(self, name)) is not None and given < number:
                raise UserError(f"run.{name}={given} must be at least {number}")
        if self.steps < 0 or self.epochs < 0 or bool(self.steps) == bool(self.epochs):
            raise UserError(
                f"run.steps={self.steps} and run.epochs={self.epochs:g}: exactly one says how long the run is; pass one "
                "above 0 and leave the other out"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of every training."""

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


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainConfig(TrainConfig):
    """The whole tokenizer, all parts together, by whatever recipe."""

    model: DoveConfig = field(default_factory=DoveConfig)
    start: Literal["random", "pretrained", "checkpoint"] = "pretrained"
    """Initialisation: random weights, with a cosine prior fitted to training images; a language model and a VQGAN; or
    another tokenizer."""
    checkpoint: str = ""
    """Model folder or shipped name of that tokenizer, for start=checkpoint."""
    pretrained_backbone: str = "EleutherAI/pythia-70m"
    """Folder or hub id of the language model, for start=pretrained."""
    pretrained_vqgan: str = "mao1207/vqvae-amused"
    """Folder or hub id of the diffusers VQModel, for start=pretrained."""
    vqgan_checkpoint: str | None = None
    """Model folder of a VQGAN stage, whose weights encoder and decoder take, whatever the rest begins with."""


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
