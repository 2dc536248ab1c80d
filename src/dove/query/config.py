"""Settings of query conditioning. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.config import DoveConfig, added
from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """Settings of the words that stand in front of the generator's latents."""

    tokenizer: str = "EleutherAI/pythia-70m"
    """Text tokenizer: "tiny", which ships with the package (byte-level BPE), or a folder or hub id of the transformers
    library."""
    vocab_size: int = 50304
    """Rows of the word embedding, at least the tokenizer's words."""
    max_length: int = 64
    """Largest number of tokens in a query; longer queries are cut, with a warning."""
    null: Literal["nothing", "word"] = added("nothing")
    """Words of a null query: none, so that it gives the tokens of the DOVE it was made from, or the word "null", as in the
    paper."""
    known: tuple[str, ...] = added(())
    """Words of the queries it was trained on, which a training on scenes writes here; a query with others is warned about.
    Empty where they are not listed."""


@dataclass(frozen=True, kw_only=True)
class QDoveConfig(DoveConfig):
    """Settings of a tokenizer that takes queries."""

    query: QueryConfig = field(default_factory=QueryConfig)
    """Text tokenizer and word embedding of the queries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token_kind != "point":
            raise UserError(
                f"a model that takes queries has no {self.token_kind} tokens; pass --model.token-kind point"
            )
