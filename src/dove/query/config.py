"""Settings of query conditioning. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.config import DoveConfig, added


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
    null: Literal["nothing", "word"] = added("nothing")
    """Words of a null query: none, so that it gives the tokens of the DOVE it started from, or the word "null", as in the
    paper."""


@dataclass(frozen=True, kw_only=True)
class QDoveConfig(DoveConfig):
    """A tokenizer that takes queries."""

    query: QueryConfig = field(default_factory=QueryConfig)
    """The words."""
