"""Token stores: folders of parquet shards with ragged values, readable without this package.

``store.json`` records the settings; ``tokens-00000.parquet`` and on hold the columns ``key``, ``length`` and ``values``, a
list of ``length * token_dim`` numbers, token after token. The metadata of each file repeat store.json, so that a shard alone
identifies its checkpoint. Shard i covers the source's records from i * shard_size on, readable or not, so that the missing
shards tell what is left to do. A shard is whole or absent.

Values are fp16 or fp32: Arrow, and so parquet, has no bfloat16, and as plain 16-bit integers nobody else could read them.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint, write_files
from dove.data.dataset import Unreadable
from dove.errors import UserError
from dove.tokens import Tokens

MANIFEST = "store.json"
FORMAT = 1
SHARD_NAME = "tokens-{:05}.parquet"
UNREADABLE, STORE = b"dove.unreadable", b"dove.store"
_DTYPES = {"fp16": pa.float16(), "fp32": pa.float32()}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Origin and settings of a store."""

    model: str
    """Name of the checkpoint."""
    checkpoint_sha256: str
    """Hash of the checkpoint's config and weights."""
    num_tokens: str
    """The length policy."""
    max_tokens: int
    token_dim: int
    dtype: Literal["fp16", "fp32"]
    source: list[str]
    records: int
    """Number of records of the source, with the unreadable ones."""
    shard_size: int
    precision: str = "fp32"
    """Precision in which the model computed."""
    query: str | None = None
    """Text that every image's tokens describe first; None for the whole image."""
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        """Number of shards of the finished store."""
        return -(-self.records // self.shard_size)

    @property
    def schema(self) -> pa.Schema:
        """Columns of a shard."""
        return pa.schema({"key": pa.string(), "length": pa.int32(), "values": pa.list_(_DTYPES[self.dtype])})


@dataclass(frozen=True)
class Shard:
    """Tokens of one file, each image with its own length."""

    keys: list[str]
    values: list[Float[Tensor, "_ D"]]
    """Tokens (k, D) of each image."""
    unreadable: list[Unreadable]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each image."""
        return [len(tokens) for tokens in self.values]

    def tokens(self, max_tokens: int, start: int = 0, stop: int | None = None) -> Tokens:
        """Pad the tokens of images ``start`` to ``stop``, at least one, to ``max_tokens``, in fp32."""
        return Tokens.from_ragged([tokens.float() for tokens in self.values[start:stop]], max_tokens)


class TokenStore:
    """Folder of shards. Use :meth:`create` to write into one and :meth:`open` to read."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "TokenStore":
        """Create a store, or continue the unfinished one in the folder.

        Raises:
            UserError: If the folder holds a store made otherwise, or cannot be written.
        """
        file = folder / MANIFEST
        remove_scraps(folder)
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
        write_files(folder, {MANIFEST: content.encode()})
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Open an existing store.

        Raises:
            UserError: If there is none.
        """
        file = folder / MANIFEST
        if not file.is_file():
            raise UserError(f"{folder} holds no {MANIFEST}; pass a folder that `dove encode` wrote")
        return cls(folder, _read_manifest(file))

    def path(self, index: int) -> Path:
        """Build the path of a shard."""
        return self.folder / SHARD_NAME.format(index)

    def missing(self) -> list[int]:
        """List the shards still to be written."""
        return [index for index in range(self.manifest.num_shards) if not self.path(index).is_file()]

    def require_complete(self) -> None:
        """Make sure that all shards are there.

        Raises:
            UserError: If some are missing.
        """
        if missing := self.missing():
            raise UserError(
                f"{self.folder} is unfinished: {len(missing)} of {self.manifest.num_shards} shards are missing; "
                "run its `dove encode` again"
            )

    def positions(self, index: int) -> range:
        """Compute the range of the source's records that a shard covers."""
        size = self.manifest.shard_size
        return range(index * size, min((index + 1) * size, self.manifest.records))

    def write(self, index: int, shard: Shard) -> None:
        """Write a shard.

        Raises:
            UserError: If the disk is full; the other shards stay whole.
        """
        numpy_type = np.float16 if self.manifest.dtype == "fp16" else np.float32
        ragged = [tokens.flatten().float().cpu().numpy().astype(numpy_type) for tokens in shard.values]
        metadata = {
            UNREADABLE: json.dumps([asdict(item) for item in shard.unreadable]).encode(),
            STORE: json.dumps(asdict(self.manifest)).encode(),
        }
        columns = {"key": shard.keys, "length": shard.lengths, "values": ragged}
        table = pa.table(columns, schema=self.manifest.schema.with_metadata(metadata))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_files(self.folder, {self.path(index).name: buffer.getvalue()})

    def read(self, index: int) -> Shard:
        """Read a shard.

        Raises:
            UserError: If it is missing or damaged, or another checkpoint's.
        """
        table = self._read_table(index)
        width = self.manifest.token_dim
        values = [torch.from_numpy(np.array(row)) for row in table["values"].to_numpy(zero_copy_only=False)]
        keys, lengths = table["key"].to_pylist(), table["length"].to_pylist()
        fitting = range(1, self.manifest.max_tokens + 1)
        for key, length, row in zip(keys, lengths, values, strict=True):
            if length not in fitting or len(row) != length * width:
                raise self._damaged(index, f"{key} has {len(row)} numbers for {length} tokens of {width}")
        return Shard(keys, [row.view(-1, width) for row in values], _unreadable(table))

    def summary(self, index: int) -> tuple[list[int], list[Unreadable]]:
        """Read the number of tokens of each image in a shard, and what could not be read, without the values.

        Raises:
            UserError: If it is missing or damaged, or another checkpoint's.
        """
        table = self._read_table(index, ["length"])
        return table["length"].to_pylist(), _unreadable(table)

    def check_checkpoint(self, name: str | Path) -> None:
        """Make sure that a checkpoint made these tokens; those of another one mean something else.

        Raises:
            UserError: If it did not.
        """
        made, sha256 = self.manifest.checkpoint_sha256, checkpoint_sha256(resolve_checkpoint(name))
        if sha256 != made:
            raise UserError(
                f"{self.folder} was made by {self.manifest.model} ({made[:12]}), but {name} is {sha256[:12]}; "
                "pass the checkpoint that made it with --model"
            )

    def _read_table(self, index: int, columns: list[str] | None = None) -> pa.Table:
        try:
            table = pq.read_table(self.path(index), columns=columns or self.manifest.schema.names, partitioning=None)
            made = json.loads((table.schema.metadata or {}).get(STORE, b"{}")).get("checkpoint_sha256")
        except (OSError, pa.ArrowException, ValueError, AttributeError) as error:
            raise self._damaged(index, error) from error
        for column in table.schema:
            expected = self.manifest.schema.field(column.name).type
            if column.type != expected:
                raise self._damaged(index, f"column {column.name} is {column.type}, not {expected}")
        if made not in (None, self.manifest.checkpoint_sha256):
            raise UserError(
                f"{self.path(index)} was made by checkpoint {made[:12]}, the rest of the store by "
                f"{self.manifest.checkpoint_sha256[:12]}; delete it and run `dove encode` again"
            )
        return table

    def _damaged(self, index: int, reason: object) -> UserError:
        told = " ".join(str(reason).split())
        return UserError(f"{self.path(index)} is missing or damaged ({told}); delete it and run `dove encode` again")

    def shards(self) -> Iterator[Shard]:
        """Iterate over all shards in order."""
        return (self.read(index) for index in range(self.manifest.num_shards))


def remove_scraps(folder: Path) -> None:
    """Remove temporary files of an interrupted run. Only one run at a time may write into a folder."""
    for pattern in (f".{MANIFEST}.*", f".{SHARD_NAME.split('{')[0]}*"):
        for scrap in folder.glob(pattern):
            scrap.unlink(missing_ok=True)


def _unreadable(table: pa.Table) -> list[Unreadable]:
    return [Unreadable(**item) for item in json.loads((table.schema.metadata or {}).get(UNREADABLE, b"[]"))]


def _read_manifest(file: Path) -> Manifest:
    try:
        manifest = Manifest(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); encode again into an empty folder") from error
    if manifest.format != FORMAT:
        raise UserError(f"{file} has format {manifest.format}, this version reads {FORMAT}; encode again")
    return manifest
