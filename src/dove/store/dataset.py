"""Stored tokens as a PyTorch dataset."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from dove.store.shards import Shard, TokenStore
from dove.tokens import Tokens

KEPT_SHARDS = 4  # Number of shards that a process keeps in memory


@dataclass(frozen=True)
class TokenRecord:
    """Tokens of one image."""

    key: str
    """Name in the source that was encoded."""
    values: Float[Tensor, "_ D"]
    """Tokens (k, D), as stored."""


class TokenDataset(Dataset[TokenRecord]):
    """Records of a folder that ``dove encode`` wrote, in the source's order.

    A map-style dataset: shuffling, sharding and resuming are the sampler's. Shards are read when one of their records is
    asked for; every loader process keeps the most recent.

    Args:
        folder: the store, finished.
        checkpoint: name or folder of the model that must have made the tokens; None for any.

    Raises:
        UserError: If there is no store, it is unfinished or damaged, or another checkpoint made it.
    """

    def __init__(self, folder: str | Path, *, checkpoint: str | Path | None = None):
        self.store = TokenStore.open(Path(folder))
        if checkpoint is not None:
            self.store.check_checkpoint(checkpoint)
        self.store.require_complete()
        shards = range(self.store.manifest.num_shards)
        self._starts = [0, *accumulate(len(self.store.summary(index)[0]) for index in shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> TokenRecord:
        """Read a record; negative indices count from the end.

        Raises:
            IndexError: If there is no such record.
            UserError: If its shard is damaged.
        """
        position = range(len(self))[index]
        number = bisect_right(self._starts, position) - 1
        shard, row = _read(self.store, number), position - self._starts[number]
        return TokenRecord(shard.keys[row], shard.values[row])

    def collate(self, records: Sequence[TokenRecord]) -> tuple[list[str], Tokens]:
        """Collate records to keys and padded tokens in fp32; the ``collate_fn`` of a ``DataLoader``."""
        rows = [record.values.float() for record in records]
        return [record.key for record in records], Tokens.from_ragged(rows, self.store.manifest.max_tokens)


@lru_cache(KEPT_SHARDS)
def _read(store: TokenStore, number: int) -> Shard:
    return store.read(number)
