"""Settings of query conditioning. Imports no torch."""

from dataclasses import dataclass, field

from dove.config import DoveConfig


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
class QDoveConfig(DoveConfig):
    """A tokenizer that takes queries."""

    query: QueryConfig = field(default_factory=QueryConfig)
    """The words."""
