"""Batches of model input in the order of the source, for every command that reads images once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from dove.data.dataset import ImageDataset, Unreadable
from dove.errors import UserError
from dove.processor import ImageProcessor

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ImageBatch:
    """Batch of B records of a source, ready for the model."""

    keys: list[str]
    pixels: Float[Tensor, "B 3 S S"]
    """(B, 3, S, S) in [-1, 1]."""
    metadata: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keys)


class ImageLoader:
    """Iterator over a source in batches; unreadable records (``on_error="skip"``) are collected, not returned.

    The next batch is read, decoded and resized by a thread while the caller works on the present one.

    Args:
        dataset: the source; to continue where another run stopped, pass ``dataset.select(range(done, len(dataset)))``.
        processor: scales the pictures to one size.
        batch_size: records of a batch; the last one, and those with unreadable records, are smaller.
    """

    def __init__(self, dataset: ImageDataset, processor: ImageProcessor, *, batch_size: int = 64) -> None:
        self.dataset, self.processor, self.batch_size = dataset, processor, batch_size
        self.unreadable: list[Unreadable] = []

    def __len__(self) -> int:
        """Count the batches, with those that may turn out empty."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        self.unreadable = []
        size, indices = self.batch_size, range(len(self.dataset))
        for batch in read_ahead([*map(self._read, indices[start : start + size])] for start in indices[::size]):
            self.unreadable += [item for item in batch if isinstance(item, Unreadable)]
            readable = [item for item in batch if not isinstance(item, Unreadable)]
            if readable:
                keys, pixels, metadata = zip(*readable, strict=True)
                yield ImageBatch(list(keys), torch.stack(pixels), list(metadata))

    def _read(self, index: int) -> tuple[str, Tensor, dict[str, Any]] | Unreadable:
        record = self.dataset[index]
        if isinstance(record, Unreadable):
            return record
        return record.key, self.processor.preprocess(record.image), record.metadata


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Iterate over batches while a thread prepares the next one."""
    end = object()
    batch = next(batches, end)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        while batch is not end:
            coming = reader.submit(next, batches, end)
            yield cast("Batch", batch)
            batch = coming.result()


@contextmanager
def loader_watched() -> Iterator[None]:
    """Report in one line what worker processes raise, and their loss, which PyTorch raises at any point of the program.

    Raises:
        UserError: If a worker process raised one or was lost.
    """
    try:
        yield
    except Exception as error:
        reason: BaseException | None = error
        while reason is not None and not (isinstance(reason, RuntimeError) and "DataLoader worker" in str(reason)):
            reason = reason.__cause__ or reason.__context__
        if reason is None and isinstance(error, UserError):
            # From another process it comes as a whole traceback, of which the last line is the message.
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
        if reason is None:
            raise
        raise UserError(
            f"a loader process was lost ({' '.join(str(reason).split())}), as happens when memory runs out; "
            "what was written is whole, run the same command again, with fewer workers"
        ) from error
