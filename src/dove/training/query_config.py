"""Settings of Q-DOVE trainings. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.data.config import AugmentConfig, SceneConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig
from dove.training.config import (
    DoveLossConfig,
    DoveTrainConfig,
    LossConfig,
    PrefixLossConfig,
    PrefixTrainConfig,
    TokenizerTrainConfig,
)

NOT_AUGMENTED = AugmentConfig(crop_probability=0.0, grayscale_probability=0.0, flip=False)


@dataclass(frozen=True, kw_only=True)
class QueryDataConfig:
    """Source of queries and their boxes."""

    kind: Literal["annotated", "scenes"] = "annotated"
    """Parquet that ``dove data convert`` wrote, or scenes of captioned cut-outs laid on the photos."""
    stamps: str = ""
    """For scenes: the table of cut-outs that ``dove data convert stamps`` wrote; one caption in eight is left out."""
    scenes: SceneConfig = field(default_factory=SceneConfig)


@dataclass(frozen=True, kw_only=True)
class QueryLossConfig(LossConfig):
    """Terms of Eq. 5 to 7 that all trainings with queries have."""

    irrelevant: float = 1e-10
    """lambda_o of Eq. 7, the weight of what lies outside of the boxes."""
    null: float = 0.5
    """Share of the queries replaced by "null", which asks for the whole image."""


@dataclass(frozen=True, kw_only=True)
class QDoveLossConfig(QueryLossConfig, DoveLossConfig):
    """Eq. 3 to 7."""


@dataclass(frozen=True, kw_only=True)
class QueryPrefixLossConfig(QueryLossConfig, PrefixLossConfig):
    """Eq. 7 at random lengths, and the error of the quality that is predicted for the asked region."""

    grounding: float = 0.0
    """Weight of the cross entropy with which a linear head, thrown away after training, tells from the grid's hidden states
    which cells lie in the asked boxes."""


@dataclass(frozen=True, kw_only=True)
class QueryTrainConfig(TokenizerTrainConfig):
    """Settings of all trainings with queries."""

    model: QDoveConfig = field(default_factory=QDoveConfig)
    loss: QueryLossConfig
    augment: AugmentConfig = NOT_AUGMENTED
    pretrained_words: str = ""
    """Folder or hub id of the language model whose word embedding queries start with; without one it starts at random."""
    queries: QueryDataConfig = field(default_factory=QueryDataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the recipe, which comes next where both are inherited
        if not 0 <= self.loss.null <= 1:
            raise UserError(f"loss.null={self.loss.null} is a share of the queries; pass a number from 0 to 1")
        if self.augment != NOT_AUGMENTED:
            raise UserError(
                'a training with queries takes pictures as they are, since a query may say "left" and boxes are in its pixels; '
                "leave out --augment"
            )


@dataclass(frozen=True, kw_only=True)
class QDoveTrainConfig(QueryTrainConfig, DoveTrainConfig):
    """The paper's recipe with queries: Eq. 3 to 7."""

    loss: QDoveLossConfig = field(default_factory=QDoveLossConfig)


@dataclass(frozen=True, kw_only=True)
class QueryPrefixTrainConfig(QueryTrainConfig, PrefixTrainConfig):
    """Random prefixes and a predicted quality with queries."""

    loss: QueryPrefixLossConfig = field(default_factory=QueryPrefixLossConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss.align.network != "none":
            raise UserError(
                f"a training with queries aligns nothing, and loss.align.network={self.loss.align.network}; pass none"
            )
