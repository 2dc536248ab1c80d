"""Conversion of queries in words to token ids."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer
from torch import Tensor

from dove.errors import UserError, require_text

TINY = "tiny"  # Name of the text tokenizer that ships with the package
NULL = "null"  # The word that asks for the whole image, as no query does


@dataclass(frozen=True, eq=False)
class QueryTokens:
    """Word ids of a batch of queries, right-aligned so that they end next to the latents.

    Attributes:
        ids: 0 where a row has no word.
        mask: True where a row has a word; a null query has none.
    """

    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]

    def to(self, device: torch.device) -> "QueryTokens":
        """Move to a device."""
        return QueryTokens(self.ids.to(device), self.mask.to(device))


def is_null(query: str | None) -> bool:
    """Return True if a query asks for the whole image.

    Raises:
        UserError: for an empty query, which may be a mistake, and for one that is no text.
    """
    return query is None or require_text(query, "the query").strip().lower() == NULL


class QueryTokenizer:
    """Text tokenizer that converts queries to ``QueryTokens``.

    Args:
        name: "tiny", or a folder or hub id of the transformers library.
        null_word: True for a null query of the word "null" instead of no word.
        known: words of the training's queries; empty where they are not listed.

    Raises:
        UserError: if it cannot be loaded, or has more words than the model.
    """

    def __init__(
        self, name: str, *, vocab_size: int, max_length: int, null_word: bool = False, known: Sequence[str] = ()
    ):
        self.max_length, self.null_word, self.known = max_length, null_word, frozenset(known)
        self.encode, words = _load(name)
        if words > vocab_size:
            raise UserError(f"the text tokenizer {name!r} has {words} words; set query.vocab_size={vocab_size} to them")

    def __call__(self, queries: Sequence[str | None]) -> QueryTokens:
        """Convert queries to word ids, padded to the longest query and cut at ``max_length``."""
        rows = [self._null() if is_null(query) else self._words(str(query)) for query in queries]
        width = max(map(len, rows), default=0)
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], dtype=torch.long).view(len(rows), width)
        lengths = torch.tensor([len(row) for row in rows])
        return QueryTokens(ids, torch.arange(width) >= width - lengths[:, None])

    def _null(self) -> list[int]:
        return self._words(NULL) if self.null_word else []

    def _words(self, query: str) -> list[int]:
        self._warn_of_unknown(query)
        words = self.encode(query.strip())
        if len(words) > self.max_length:
            warnings.warn(
                f"the query {query[:40]!r}... has {len(words)} tokens; the first {self.max_length} are used",
                stacklevel=4,
            )
        return words[: self.max_length]

    def _warn_of_unknown(self, query: str) -> None:
        """Warn, once, of a query with words that no query of the training had."""
        words = split_words(query) or [query.strip()]
        if self.known and (unknown := [word for word in words if word not in self.known]):
            self.known = frozenset()
            warnings.warn(
                f"the query {query[:40]!r} has words that the model was not trained on ({', '.join(unknown)}); it may not find "
                "what they mean. Further queries of that kind are not warned about",
                stacklevel=5,
            )


def split_words(text: str) -> list[str]:
    """Split a text into words in lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


@lru_cache(maxsize=4)
def _load(name: str) -> tuple[Callable[[str], list[int]], int]:
    if name == TINY:
        tiny = Tokenizer.from_str((files("dove.query") / "words.json").read_text(encoding="utf-8"))
        # Lower case is enough for class names and questions, and halves what has to be learned.
        return (lambda query: tiny.encode(query.lower()).ids), tiny.get_vocab_size()
    from transformers import AutoTokenizer

    try:
        pretrained = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"cannot load the text tokenizer {name!r}: {reason}; check the network, or set query.tokenizer to a folder"
        ) from error
    return (lambda query: pretrained.encode(query, add_special_tokens=False)), len(pretrained)
