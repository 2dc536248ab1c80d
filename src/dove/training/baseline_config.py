"""Settings of the baselines' trainings. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig
from dove.errors import UserError
from dove.training.config import CodebookLossConfig, ReconstructionLossConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class QuantizedLossConfig(CodebookLossConfig, ReconstructionLossConfig):
    """Eq. 2 on the image that codes give, and the codebook's own loss."""


@dataclass(frozen=True, kw_only=True)
class QuantizedTrainConfig(TrainConfig):
    """Trainings of a whole model on pixels, with the codebook in the data path."""

    loss: QuantizedLossConfig = field(default_factory=QuantizedLossConfig)


@dataclass(frozen=True, kw_only=True)
class MaskgitVQGANTrainConfig(QuantizedTrainConfig):
    """The VQGAN without attention, which the two-stage models need first."""

    model: MaskgitVQGANConfig = field(default_factory=MaskgitVQGANConfig)


@dataclass(frozen=True, kw_only=True)
class TiTokTrainConfig(QuantizedTrainConfig):
    """TiTok by the single-stage recipe."""

    model: TiTokConfig

    def __post_init__(self) -> None:
        if self.model.head != "pixels":
            raise UserError("the single-stage recipe predicts pixels; pass --model.head pixels or a *-codes preset")


@dataclass(frozen=True, kw_only=True)
class TwoStageTrainConfig(TrainConfig):
    """Settings of first stages: the codes of a VQGAN as targets, no pixels."""

    loss: CodebookLossConfig = field(default_factory=CodebookLossConfig)
    vqgan_checkpoint: str = ""
    """Model folder of the trained VQGAN without attention whose codes are learned."""


@dataclass(frozen=True, kw_only=True)
class TiTokCodesTrainConfig(TwoStageTrainConfig):
    """Stage one of the two-stage TiTok."""

    model: TiTokConfig

    def __post_init__(self) -> None:
        if self.model.head != "codes":
            raise UserError("the two-stage recipe predicts codes; pass --model.head codes")


@dataclass(frozen=True, kw_only=True)
class ALITCodesTrainConfig(TwoStageTrainConfig):
    """Stage one of ALIT: every roll-out predicts the codes."""

    model: ALITConfig
    roll_outs: Literal["all", "drawn"] = "all"
    """All roll-outs in every step, as published, or the first few, their number drawn anew: half the cost of a step."""


@dataclass(frozen=True, kw_only=True)
class TiTokPixelsTrainConfig(TrainConfig):
    """Stage two of the two-stage TiTok: pixels as targets; the encoder, the codebooks and so the tokens stay as they are."""

    model: TiTokConfig
    loss: ReconstructionLossConfig = field(default_factory=ReconstructionLossConfig)
    stage_one: str = ""
    """Model folder of stage one."""


@dataclass(frozen=True, kw_only=True)
class ALITPixelsTrainConfig(TrainConfig):
    """Stage two of ALIT: the image of a random roll-out at every step, through everything but the VQGAN's codes."""

    model: ALITConfig
    loss: QuantizedLossConfig = field(default_factory=QuantizedLossConfig)
    stage_one: str = ""
    """Model folder of stage one."""
