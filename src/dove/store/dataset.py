"""Stored tokens as a PyTorch dataset."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
from dove.errors import UserError
from dove.store.shards import Shard, TokenStore
from dove.tokens import Tokens


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
        kept_shards: number of shards in memory at a time, at least 1.

    Raises:
        UserError: If there is no store, it is unfinished or damaged, or another checkpoint made it.
    """

    def __init__(self, folder: str | Path, *, checkpoint: str | Path | None = None, kept_shards: int = 4):
        self.store = TokenStore.open(Path(folder))
        if checkpoint is not None:
            self.store.check_checkpoint(checkpoint_sha256(resolve_checkpoint(checkpoint)), str(checkpoint))
        self.store.require_complete()
        if kept_shards < 1:
            raise UserError(f"kept_shards={kept_shards} must be at least 1")
        self.kept_shards = kept_shards
        rows = [self.store.rows(index) for index in range(self.store.manifest.num_shards)]
        self._starts = [0, *accumulate(rows)]
        self._cache: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}  # every worker fills its own cache

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
        shard, row = self._shard(number), position - self._starts[number]
        return TokenRecord(shard.keys[row], shard.values[row])

    def collate(self, records: Sequence[TokenRecord]) -> tuple[list[str], Tokens]:
        """Collate records to keys and padded tokens in fp32; the ``collate_fn`` of a ``DataLoader``."""
        rows = [record.values.float() for record in records]
        return [record.key for record in records], Tokens.from_ragged(rows, self.store.manifest.max_tokens)

    def _shard(self, number: int) -> Shard:
        if number in self._cache:
            self._cache.move_to_end(number)
        else:
            self._cache[number] = self.store.read(number)
            if len(self._cache) > self.kept_shards:
                self._cache.popitem(last=False)
        return self._cache[number]
