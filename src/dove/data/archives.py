"""WebDataset shards: tar files of pictures and their metadata."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dove.data.dataset import ImageDataset, RawRecord
from dove.data.reading import SUFFIXES, check_size
from dove.errors import UserError, one_line, readable

Place = tuple[int, int]  # Offset and size of a member in its shard, in bytes
_METADATA = ("json", "cls", "txt")


@dataclass(frozen=True)
class _Picture:
    """One picture of a shard with the places of its metadata."""

    path: str
    key: str
    place: Place
    metadata: dict[str, Place]  # Places of the members, by kind: json, cls, txt


class TarImages(ImageDataset):
    """Pictures in WebDataset shards.

    Files that share a name up to the first dot are one sample, and each picture of a sample is one record.

    A record's key is the picture's name up to the last dot. Members ``json``, ``cls`` (an integer) and ``txt`` become its
    metadata where their name is that of the sample or the same up to the last dot; an object in ``json`` is merged into it.
    The headers are read once; pictures are then read from their place in the shard.
    """

    def __init__(self, paths: Sequence[str]):
        self.pictures: list[_Picture] = []
        self._starts = [0]
        for path in paths:
            self.pictures += _pictures(path, _index_tar(path))
            if len(self.pictures) == self._starts[-1]:
                raise UserError(f"{path}: holds no image files; a WebDataset shard has members like 000001.jpg")
            self._starts.append(len(self.pictures))

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def blocks(self) -> Sequence[int]:
        """See `ImageDataset.blocks`; one block per shard."""
        return self._starts

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        picture = self.pictures[index]
        name = f"{readable(picture.path)} sample {picture.key}"
        metadata: dict[str, Any] = {}
        try:
            with Path(picture.path).open("rb") as file:
                for kind, place in picture.metadata.items():
                    metadata |= _metadata(kind, _read(file, place, f"{name}: its {kind} member"), name)
                data = _read(file, picture.place, f"{name}: its picture")
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({one_line(error)}); check the shard") from error
        stem = readable(Path(picture.path).name.removesuffix(".tar"))
        return RawRecord(f"{stem}/{picture.key}", name, data, metadata)


def _read(file: Any, place: Place, name: str) -> bytes:
    offset, size = place
    check_size(size, name)
    file.seek(offset)
    return bytes(file.read(size))


def _index_tar(path: str) -> dict[str, dict[str, Place]]:
    """Index a shard by sample (name up to the first dot) and then by the rest of the name in lower case."""
    samples: dict[str, dict[str, Place]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                if member.isfile() and stem and extension:
                    sample = f"{folder}/{stem}" if folder else stem
                    samples.setdefault(sample, {})[extension.lower()] = (member.offset_data, member.size)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: not a readable, uncompressed tar file ({one_line(error)}); write it again") from error
    return samples


def _pictures(path: str, samples: dict[str, dict[str, Place]]) -> Iterator[_Picture]:
    taken: set[str] = set()
    for sample, members in samples.items():
        for extension, place in members.items():
            own, _, suffix = extension.rpartition(".")
            if f".{suffix}" not in SUFFIXES:
                continue
            key = f"{sample}.{own}" if own else sample
            if key in taken:  # a.jpg and a.png
                key = f"{sample}.{extension}"
            taken.add(key)
            metadata = {
                kind: members[name] for kind in _METADATA for name in (kind, f"{own}.{kind}") if name in members
            }
            yield _Picture(path, readable(key), place, metadata)


def _metadata(kind: str, content: bytes, name: str) -> dict[str, Any]:
    try:
        if kind == "json":
            value = json.loads(content)
            return value if isinstance(value, dict) else {"json": value}
        return {"label": int(content)} if kind == "cls" else {"txt": content.decode()}
    except ValueError as error:
        raise UserError(f"{name}: its {kind} member is damaged ({one_line(error)})") from error
