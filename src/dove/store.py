"""Tokens on disk: a folder of parquet shards with ragged values, readable without this package.

``store.json`` says what made them; ``tokens-00000.parquet`` and on hold the columns ``key``, ``length`` and ``values``, a list
of ``length * token_dim`` numbers, token after token. Shard i covers the source's records i * shard_size and on, whether
readable or not, so that what is still to do follows from which shards are there. A shard is whole or absent.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dove.checkpoint import write_files
from dove.data.dataset import Unreadable
from dove.errors import UserError
from dove.tokens import Tokens

MANIFEST = "store.json"
FORMAT = 1
UNREADABLE = b"dove.unreadable"
_DTYPES = {"fp16": pa.float16(), "fp32": pa.float32()}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store was made from and with."""

    model: str
    """Name of the checkpoint."""
    checkpoint_sha256: str
    """Of its config and weights."""
    num_tokens: str
    """The length policy."""
    max_tokens: int
    token_dim: int
    dtype: Literal["fp16", "fp32"]
    source: list[str]
    records: int
    """Records of the source, with the unreadable ones."""
    shard_size: int
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        return -(-self.records // self.shard_size)


@dataclass(frozen=True)
class Shard:
    """The tokens of one file."""

    keys: list[str]
    tokens: Tokens
    unreadable: list[Unreadable]


class TokenStore:
    """A folder of shards. Use :meth:`create` to write into one and :meth:`open` to read."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "TokenStore":
        """A new store, or the unfinished one that is there already.

        Raises:
            UserError: if the folder holds a store made otherwise, or cannot be written.
        """
        file = folder / MANIFEST
        if file.exists():
            found = asdict(_read_manifest(file))
            different = [name for name, value in asdict(manifest).items() if found[name] != value]
            if different:
                what = "; ".join(f"{name} was {found[name]!r}, now {asdict(manifest)[name]!r}" for name in different)
                raise UserError(f"{folder} holds tokens made otherwise ({what}); pass another --output")
            return cls(folder, manifest)
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no tokens; pass another --output")
        content = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
        _write(folder, MANIFEST, content.encode())
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """An existing store.

        Raises:
            UserError: if there is none.
        """
        file = folder / MANIFEST
        if not file.is_file():
            raise UserError(f"{folder} holds no {MANIFEST}; pass a folder that `dove encode` wrote")
        return cls(folder, _read_manifest(file))

    def path(self, index: int) -> Path:
        """The file of a shard."""
        return self.folder / f"tokens-{index:05}.parquet"

    def missing(self) -> list[int]:
        """Shards still to be written."""
        return [index for index in range(self.manifest.num_shards) if not self.path(index).is_file()]

    def positions(self, index: int) -> range:
        """The source's records that a shard covers."""
        size = self.manifest.shard_size
        return range(index * size, min((index + 1) * size, self.manifest.records))

    def write(self, index: int, shard: Shard) -> None:
        """Write a shard.

        Raises:
            UserError: if the disk is full; the other shards stay whole.
        """
        lengths = shard.tokens.lengths.tolist()
        numpy_type = np.float16 if self.manifest.dtype == "fp16" else np.float32
        ragged = [tokens.flatten().float().cpu().numpy().astype(numpy_type) for tokens in shard.tokens.ragged()]
        columns = {
            "key": pa.array(shard.keys, pa.string()),
            "length": pa.array(lengths, pa.int32()),
            "values": pa.array(ragged, pa.list_(_DTYPES[self.manifest.dtype])),
        }
        unreadable = json.dumps([asdict(item) for item in shard.unreadable])
        table = pa.table(columns).replace_schema_metadata({UNREADABLE: unreadable.encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        _write(self.folder, self.path(index).name, buffer.getvalue())

    def read(self, index: int) -> Shard:
        """A shard.

        Raises:
            UserError: if it is missing or damaged.
        """
        path = self.path(index)
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} is missing or damaged ({reason}); delete it and run `dove encode` again"
            ) from error
        values = [
            torch.from_numpy(np.array(row, dtype=np.float32)).view(-1, self.manifest.token_dim)
            for row in table["values"].to_numpy(zero_copy_only=False)
        ]
        stored = json.loads((table.schema.metadata or {}).get(UNREADABLE, b"[]"))
        unreadable = [Unreadable(**item) for item in stored]
        return Shard(table["key"].to_pylist(), self._tokens(values), unreadable)

    def shards(self) -> Iterator[Shard]:
        """All shards in order."""
        return (self.read(index) for index in range(self.manifest.num_shards))

    def _tokens(self, values: Sequence[torch.Tensor]) -> Tokens:
        if not values:
            empty = torch.zeros(0, self.manifest.max_tokens, self.manifest.token_dim)
            return Tokens(empty, torch.zeros(0, dtype=torch.long))
        return Tokens.from_ragged(list(values), self.manifest.max_tokens)


def _read_manifest(file: Path) -> Manifest:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        manifest = Manifest(**values)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); encode again into an empty folder") from error
    if manifest.format != FORMAT:
        raise UserError(f"{file} has format {manifest.format}, this version reads {FORMAT}; encode again")
    return manifest


def _write(folder: Path, name: str, content: bytes) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, {name: content})
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {folder / name}: {reason}; free some space and run the same command again"
        ) from error
