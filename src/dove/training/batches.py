"""Batches of one rank, step by step, and the records in them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset

from dove.data.augment import ResumableSampler
from dove.data.dataset import ImageDataset
from dove.errors import UserError
from dove.training.config import RunConfig


class Batches:
    """Everything follows from the step, so that a resumed run goes on at the exact sample.

    Args:
        examples: asked for as ``(epoch, index)`` pairs, with a ``collate`` where they are no tensors and, for messages,
            ``key(index)``.
    """

    def __init__(self, examples: Any, run: RunConfig, *, rank: int = 0, world_size: int = 1, workers: int = 0):
        self.examples: Dataset[Any] = examples
        self.run, self.rank, self.world_size, self.workers = run, rank, world_size, workers
        dataset = getattr(examples, "dataset", None)
        self.blocks = dataset.blocks if run.shuffle_blocks and isinstance(dataset, ImageDataset) else None
        if run.shuffle_blocks and self.blocks is None:
            raise UserError("run.shuffle_blocks is for images in shards; these examples have none, pass 0")

    def from_step(self, start: int) -> Iterator[list[Any]]:
        """Iterate over the ``run.accumulate`` batches of step ``start``, of the next one, and so on without end."""
        loader = DataLoader(
            self.examples,
            batch_size=self.run.batch_size,
            sampler=self._sampler(start),
            collate_fn=getattr(self.examples, "collate", None),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )
        batches = iter(loader)
        while True:
            yield list(islice(batches, self.run.accumulate))

    def records(self, step: int) -> list[dict[str, Any]]:
        """List epoch, index and key of the records of a step, in their order."""
        key = getattr(self.examples, "key", None)
        pairs = islice(self._sampler(step), self.run.batch_size * self.run.accumulate)
        return [{"epoch": epoch, "index": index, **({"key": key(index)} if key else {})} for epoch, index in pairs]

    def _sampler(self, step: int) -> ResumableSampler:
        return ResumableSampler(
            len(self.examples),  # type: ignore[arg-type]
            seed=self.run.seed,
            rank=self.rank,
            world_size=self.world_size,
            start=step * self.run.batch_size * self.run.accumulate,
            blocks=self.blocks,
            window=self.run.shuffle_blocks,
        )
