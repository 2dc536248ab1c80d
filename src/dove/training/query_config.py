"""Settings of Q-DOVE trainings. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.data.config import AugmentConfig, MosaicConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig
from dove.training.config import DoveLossConfig, DoveTrainConfig, PrefixLossConfig, PrefixTrainConfig

NOT_AUGMENTED = AugmentConfig(crop_probability=0.0, grayscale_probability=0.0, flip=False)


@dataclass(frozen=True, kw_only=True)
class QueryDataConfig:
    """Where queries and their boxes come from."""

    kind: Literal["annotated", "mosaics"] = "annotated"
    """Parquet that ``dove data convert`` wrote, or scenes made of photos of single named objects."""
    whole: str = ""
    """For mosaics: further photos with ``name`` and ``bbox``, which make a scene alone."""
    mosaics: MosaicConfig = field(default_factory=MosaicConfig)


@dataclass(frozen=True, kw_only=True)
class QDoveLossConfig(DoveLossConfig):
    """Eq. 3 to 7."""

    irrelevant: float = 1e-10
    """lambda_o of Eq. 7, the weight of what lies outside of the boxes."""
    null: float = 0.5
    """Share of the queries replaced by "null", which asks for the whole image."""


@dataclass(frozen=True, kw_only=True)
class QueryPrefixLossConfig(PrefixLossConfig):
    """Eq. 7 at random lengths, and the error of the quality that is predicted for the asked region."""

    irrelevant: float = 1e-10
    """lambda_o of Eq. 7, the weight of what lies outside of the boxes."""
    null: float = 0.5
    """Share of the queries replaced by "null", which asks for the whole image."""


@dataclass(frozen=True, kw_only=True)
class QDoveTrainConfig(DoveTrainConfig):
    """The paper's recipe with queries: Eq. 3 to 7."""

    model: QDoveConfig = field(default_factory=QDoveConfig)
    loss: QDoveLossConfig = field(default_factory=QDoveLossConfig)
    augment: AugmentConfig = NOT_AUGMENTED
    pretrained_words: str = ""
    """Folder or hub id of the language model whose word embedding queries start with; without one it starts at random."""
    queries: QueryDataConfig = field(default_factory=QueryDataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queries(self)


@dataclass(frozen=True, kw_only=True)
class QueryPrefixTrainConfig(PrefixTrainConfig):
    """Random prefixes and a predicted quality with queries."""

    model: QDoveConfig = field(default_factory=QDoveConfig)
    loss: QueryPrefixLossConfig = field(default_factory=QueryPrefixLossConfig)
    augment: AugmentConfig = NOT_AUGMENTED
    pretrained_words: str = ""
    """Folder or hub id of the language model whose word embedding queries start with; without one it starts at random."""
    queries: QueryDataConfig = field(default_factory=QueryDataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queries(self)


def check_queries(config: QDoveTrainConfig | QueryPrefixTrainConfig) -> None:
    """Refuse a share of null queries that is none, and pictures that would be changed under their queries.

    Raises:
        UserError: for a number that is not from 0 to 1, or any augmentation.
    """
    if not 0 <= config.loss.null <= 1:
        raise UserError(f"loss.null={config.loss.null} is a share of the queries; pass a number from 0 to 1")
    if config.augment != NOT_AUGMENTED:
        raise UserError(
            'a training with queries takes pictures as they are, since a query may say "left" and boxes are in its pixels; '
            "leave out --augment, and see --queries.mosaics for what is done to scenes"
        )
