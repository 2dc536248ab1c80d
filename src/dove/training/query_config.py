"""Settings of Q-DOVE trainings. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.data.config import MosaicConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig
from dove.training.config import DoveLossConfig, DoveTrainConfig, PrefixLossConfig, PrefixTrainConfig


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
    """Eq. 7 at random lengths, and the error of the quality that is foreseen for the asked region."""

    irrelevant: float = 1e-10
    """lambda_o of Eq. 7, the weight of what lies outside of the boxes."""
    null: float = 0.5
    """Share of the queries replaced by "null", which asks for the whole image."""
    locate: float = 0.1
    """Weight of the cross-entropy of the asked rectangle of cells, for models that pick one."""
    given: float = 0.5
    """Share of the queries whose true rectangle is given, so that describing one is learned before finding it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefixes_per_image != 1:
            raise UserError("training with queries cuts one prefix per image: leave out --loss.prefixes-per-image")


@dataclass(frozen=True, kw_only=True)
class QDoveTrainConfig(DoveTrainConfig):
    """The paper's recipe with queries: Eq. 3 to 7."""

    model: QDoveConfig = field(default_factory=QDoveConfig)
    loss: QDoveLossConfig = field(default_factory=QDoveLossConfig)
    queries: QueryDataConfig = field(default_factory=QueryDataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self.loss.null)


@dataclass(frozen=True, kw_only=True)
class QueryPrefixTrainConfig(PrefixTrainConfig):
    """Random prefixes and a predicted quality with queries."""

    model: QDoveConfig = field(default_factory=QDoveConfig)
    loss: QueryPrefixLossConfig = field(default_factory=QueryPrefixLossConfig)
    queries: QueryDataConfig = field(default_factory=QueryDataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self.loss.null, self.loss.given)
        if self.loss.prefixes_per_image != 1:
            raise UserError("with queries every image is rebuilt once a step; pass --loss.prefixes-per-image 1")


def check_shares(*shares: float) -> None:
    """Whether numbers are shares.

    Raises:
        UserError: for one that is not from 0 to 1.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise UserError(f"loss.null and loss.given are shares of the queries; {share} is not from 0 to 1")
