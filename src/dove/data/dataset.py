"""Interface of image sources: numbered records, each read on access."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from PIL import Image
from torch.utils.data import Dataset

from dove.data.reading import ImageSource, read_image
from dove.errors import UserError

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Record:
    """One picture of a source."""

    key: str
    """Name, unique within the source."""
    image: Image.Image
    """RGB, upright, in its stored size."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Further values of the source, such as ``label``, ``name`` and ``bbox``."""


@dataclass(frozen=True)
class Unreadable:
    """Placeholder for a record that could not be read (``on_error="skip"``)."""

    key: str
    reason: str
    """One line, with the name of the file."""


@dataclass(frozen=True)
class RawRecord:
    """A record before its picture is decoded."""

    key: str
    name: str
    """Name in messages: the path, or the file and the row."""
    source: ImageSource | None
    """Path or encoded bytes; None where the source has no picture."""
    metadata: dict[str, Any]

    def read(self) -> Record:
        """Decode the picture.

        Raises:
            UserError: If there is none or it cannot be read.
        """
        if self.source is None:
            raise UserError(f"{self.name}: holds no picture; leave it out")
        return Record(self.key, read_image(self.source, name=self.name), self.metadata)


class ImageDataset(Dataset[Record | Unreadable], ABC):
    """Map-style dataset with a fixed order that can be pickled into the workers of a ``DataLoader``."""

    on_error: OnError = "raise"
    """Treatment of unreadable records: an exception, or an ``Unreadable`` in the record's place."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def blocks(self) -> Sequence[int]:
        """Boundaries of the runs of records that are cheap to read together (row groups, shards), from 0 to the length."""
        return [0, len(self)]

    @property
    def files(self) -> Sequence[str]:
        """Paths of the image files that are records of their own."""
        return ()

    @abstractmethod
    def raw(self, index: int) -> RawRecord:
        """Look up the record at ``index`` (0 <= index < length) without decoding it."""

    def __getitem__(self, index: int) -> Record | Unreadable:
        """Read the record at ``index``; negative indices count from the end.

        Raises:
            UserError: If its picture cannot be read and ``on_error`` is ``raise``.
            IndexError: If there is no such record.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        key = f"record {position}"
        try:
            raw = self.raw(position)
            key = raw.key
            return raw.read()
        except UserError as error:
            if self.on_error == "raise":
                raise
            return Unreadable(key, str(error))

    def __iter__(self) -> Iterator[Record | Unreadable]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> "ImageSubset":
        """Select the records at ``indices``, in that order."""
        return ImageSubset(self, indices)


class ImageSubset(ImageDataset):
    """Selection of records from another source."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]):
        self.dataset, self.indices, self.on_error = dataset, indices, dataset.on_error

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def blocks(self) -> Sequence[int]:
        """See `ImageDataset.blocks`; the source's own where the selection is a range without gaps."""
        if not isinstance(self.indices, range) or self.indices.step != 1:
            return super().blocks
        first, last = self.indices.start, self.indices.stop
        inner = [start - first for start in self.dataset.blocks if first < start < last]
        return [0, *inner, len(self)]

    @property
    def files(self) -> Sequence[str]:
        """See `ImageDataset.files`; all of the source's."""
        return self.dataset.files

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        return self.dataset.raw(self.indices[index])


class ConcatImages(ImageDataset):
    """Concatenation of several sources."""

    def __init__(self, parts: Sequence[ImageDataset]):
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def blocks(self) -> Sequence[int]:
        """See `ImageDataset.blocks`."""
        firsts = accumulate((len(part) for part in self.parts), initial=0)
        found = [first + start for first, part in zip(firsts, self.parts, strict=False) for start in part.blocks]
        return list(dict.fromkeys(found))

    @property
    def files(self) -> Sequence[str]:
        """See `ImageDataset.files`."""
        return [path for part in self.parts for path in part.files]

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        for part in self.parts:
            if index < len(part):
                return part.raw(index)
            index -= len(part)
        raise IndexError(index)


def summarise_unreadable(unreadable: Sequence[Unreadable], total: int) -> str:
    """Summarise in one line which of ``total`` records were left out; a command prints it last and exits with status 2."""
    reasons = "; ".join(item.reason for item in unreadable)
    if total == 1:
        return f"the image could not be read: {reasons}"
    return f"{len(unreadable)} of {total} images could not be read and were left out: {reasons}"
