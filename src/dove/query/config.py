"""Settings of query conditioning. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.config import DoveConfig
from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """How a query becomes tokens in front of the generator's latents."""

    tokenizer: str = "EleutherAI/pythia-70m"
    """Text tokenizer: "tiny", which ships with the package (byte-level BPE), or a folder or hub id of the transformers
    library."""
    vocab_size: int = 50304
    """Rows of the word embedding, at least the tokenizer's words."""
    max_length: int = 64
    """Query tokens that fit; what is longer is cut, with a warning."""


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """How a query picks a rectangle of grid cells, which the tokens then describe first."""

    kind: Literal["none", "rectangle"] = "none"
    """None leaves it all to the generator, as in the paper. A rectangle needs ``token_basis`` "bands"."""
    context_tokens: int = 2
    """Tokens in front of the region's that describe the whole picture."""
    channels: tuple[int, int, int] = (64, 80, 192)
    """Widths of what looks for the query's object: the unfolded latents and the convolutions at twice the grid's resolution,
    and those at its own."""
    least_overlap: float = 0.4
    """Expected intersection over union that a rectangle needs; below it the tokens describe the whole picture."""


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
