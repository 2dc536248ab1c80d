"""Batches of model input in the order of the source, for every command that reads images once."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dove.data.dataset import ImageDataset, Unreadable
from dove.errors import UserError
from dove.processor import ImageProcessor

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ImageBatch:
    """Some records of a source, ready for the model."""

    keys: list[str]
    pixels: Float[Tensor, "B 3 S S"]
    """In [-1, 1]."""
    metadata: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keys)


_Item = tuple[str, Tensor, dict[str, Any]]


class ImageLoader:
    """Iterates over a source in batches; unreadable records (``on_error="skip"``) are collected, not returned.

    The next batch is read, decoded and resized by a thread while the caller works on the present one.

    Args:
        dataset: the source; to go on where another run stopped, pass ``dataset.select(range(done, len(dataset)))``.
        processor: makes the pictures one size.
        batch_size: records of a batch; the last one, and those with unreadable records, are smaller.
        num_workers: processes that read; 0 reads in this one.
    """

    def __init__(
        self, dataset: ImageDataset, processor: ImageProcessor, *, batch_size: int = 64, num_workers: int = 0
    ) -> None:
        self.dataset, self.processor = dataset, processor
        self.batch_size, self.num_workers = batch_size, num_workers
        self.unreadable: list[Unreadable] = []

    def __len__(self) -> int:
        """Batches, counting those that may turn out empty."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        self.unreadable = []
        items = _Processed(self.dataset, self.processor)
        loader = DataLoader(items, self.batch_size, num_workers=self.num_workers, collate_fn=list)
        for batch in read_ahead(relay_errors(loader)):
            self.unreadable += [item for item in batch if isinstance(item, Unreadable)]
            readable = [item for item in batch if not isinstance(item, Unreadable)]
            if readable:
                keys, pixels, metadata = zip(*readable, strict=True)
                yield ImageBatch(list(keys), torch.stack(pixels), list(metadata))


class _Processed(Dataset[_Item | Unreadable]):
    def __init__(self, dataset: ImageDataset, processor: ImageProcessor):
        self.dataset, self.processor = dataset, processor

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Item | Unreadable:
        record = self.dataset[index]
        if isinstance(record, Unreadable):
            return record
        return record.key, self.processor.preprocess(record.image), record.metadata


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the next one of which is made by a thread while the caller has the present one."""
    end = object()
    # The first comes by the caller's own thread: processes of a DataLoader are watched by signals, which need the main one.
    batch = next(batches, end)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        while batch is not end:
            coming = reader.submit(next, batches, end)
            yield cast(Batch, batch)
            batch = coming.result()


def relay_errors(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a ``DataLoader``, with what goes wrong in its processes told in one line.

    Raises:
        UserError: what a loader process raised, or that one was lost.
    """
    batches = iter(loader)
    while True:
        with loader_watched():
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:
                # From another process it comes as a whole traceback, of which the last line is the message.
                raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
        yield batch


@contextmanager
def loader_watched() -> Iterator[None]:
    """Tell in one line that a loader process was lost: PyTorch raises that at any moment, wherever the program then is.

    Raises:
        UserError: if it was.
    """
    try:
        yield
    except Exception as error:
        reason: BaseException | None = error
        while reason is not None and not (isinstance(reason, RuntimeError) and "DataLoader worker" in str(reason)):
            reason = reason.__cause__ or reason.__context__
        if reason is None:
            raise
        raise UserError(
            f"a loader process was lost ({' '.join(str(reason).split())}), as happens when memory runs out; "
            "what was written is whole, run the same command again, with fewer workers"
        ) from error
