"""Rows of parquet files as image records."""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dove.data.dataset import ImageDataset, RawRecord
from dove.data.reading import ImageSource, check_size
from dove.errors import UserError, one_line, readable

PARQUET_CACHE_BYTES = 1 << 30  # Size of the decompressed row groups that one process keeps, in any order of access
BYTES, TEXT = {pa.binary(), pa.large_binary(), pa.null()}, {pa.string(), pa.large_string(), pa.null()}
MAX_GROUP_BYTES = 8 << 30  # Limit for the decompressed size of a row group, by its footer; larger ones are refused


@dataclass(frozen=True, eq=False)
class _Group:
    """A row group."""

    path: str
    number: int  # Index within its file
    first: int  # First row within the file
    rows: int
    starts: NDArray[np.int64] | None
    """First record of each row, and their number, where the column holds lists of images; None elsewhere."""

    def __len__(self) -> int:
        """Count the records."""
        return self.rows if self.starts is None else int(self.starts[-1])


class ParquetImages(ImageDataset):
    """Rows of parquet files, in the order of the files; the other columns are the metadata.

    Row groups are read through a memory map when one of their rows is asked for, and the most recent are kept.

    Args:
        image_column: encoded bytes, a path of an image file below the folder of the parquet file, a struct
            ``{bytes, path}`` of them, or a list of these, each image of which is a record.
        columns: other columns that become metadata; None for all.
    """

    def __init__(self, paths: Sequence[str], image_column: str = "image", columns: Sequence[str] | None = None):
        self.paths, self.image_column = list(paths), image_column
        self.columns = None if columns is None else [image_column, *(name for name in columns if name != image_column)]
        self._groups: list[_Group] = []
        for path in self.paths:
            file = _open_parquet(path)
            require_columns(path, file.schema_arrow.names, self.columns or [image_column])
            self._groups += _groups(path, file, image_column)
        self._starts = [0, *accumulate(map(len, self._groups))]
        root = os.path.dirname(os.path.commonprefix(self.paths))  # noqa: RUF071 - dirname drops a partial name
        self._stems = {
            path: readable(os.path.relpath(path, root or ".").removesuffix(".parquet")) for path in self.paths
        }
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._damaged: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}  # every worker fills its own

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def blocks(self) -> Sequence[int]:
        """See `ImageDataset.blocks`; one block per row group."""
        return list(dict.fromkeys(self._starts))

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        number = bisect_right(self._starts, index) - 1
        group, table = self._groups[number], self._table(number)
        offset, place = index - self._starts[number], None
        if group.starts is not None:
            record, offset = offset, int(np.searchsorted(group.starts, offset, side="right")) - 1
            place = record - int(group.starts[offset])
        row = group.first + offset
        key, name = f"{self._stems[group.path]}/{row:06d}", f"{readable(group.path)} row {row}"
        metadata = {name: table[name][offset].as_py() for name in table.column_names if name != self.image_column}
        cell = table[self.image_column][offset].as_py()
        if place is not None:
            key, name = f"{key}-{place}", f"{name} image {place}"
            cell = cell[place] if cell else None
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if isinstance(data, str):
            data, path = None, data
        if path:
            metadata.setdefault("path", path)
        source: ImageSource | None = data
        if not data and path:
            name = f"{name} ({readable(path)})"
            source = _beside(group.path, path, name)
        return RawRecord(key, name, source, metadata)

    def _table(self, index: int) -> pa.Table:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        if index in self._damaged:
            raise UserError(self._damaged[index])  # at once: an epoch asks for every row of it
        group = self._groups[index]
        try:
            table = _read_group(_open_parquet(group.path), group.path, group.number, self.columns)
            if len(table) != group.rows:  # also of a file that was written anew since it was opened
                raise UserError(
                    f"{group.path}: row group {group.number} has {len(table)} rows, its footer says otherwise"
                )
        except UserError as error:
            self._damaged[index] = str(error)
            raise
        self._cache[index] = table
        while len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > PARQUET_CACHE_BYTES:
            self._cache.popitem(last=False)
        return table


def require_columns(source: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Make sure that a table has its columns."""
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{source}: has no column '{missing[0]}'; its columns are {', '.join(present)}")


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: not a readable parquet file ({one_line(error)}); download or write it again"
        ) from error


def _read_group(file: pq.ParquetFile, path: str, number: int, columns: Sequence[str] | None) -> pa.Table:
    check_size(file.metadata.row_group(number).total_byte_size, f"{path}: row group {number}", MAX_GROUP_BYTES)
    try:
        # Single-threaded: worker processes are the parallelism, and Arrow's threads do not survive a fork.
        return file.read_row_group(number, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise UserError(f"{path}: damaged parquet file ({one_line(error)}); download or write it again") from error


def _groups(path: str, file: pq.ParquetFile, image_column: str) -> list[_Group]:
    """List the row groups of a file; those with lists of images are read once for the lengths of the lists."""
    field = file.schema_arrow.field(image_column)
    listed = isinstance(field.type, pa.ListType | pa.LargeListType)
    if not _holds_images(field.type.value_type if listed else field.type):
        raise UserError(
            f"{path}: its column '{field.name}' holds {field.type}, no encoded images; name another with --image-column"
        )
    groups: list[_Group] = []
    first = 0
    for number in range(file.num_row_groups):
        rows, starts = file.metadata.row_group(number).num_rows, None
        if listed and rows:
            lists = _read_group(file, path, number, [image_column])[image_column].combine_chunks()
            lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            starts = np.r_[0, np.maximum(lengths, 1).cumsum()]  # an empty list is a record without a picture
        groups.append(_Group(path, number, first, rows, starts))
        first += rows
    return groups


def _holds_images(kind: pa.DataType) -> bool:
    """Tell whether values are encoded bytes, paths, or structs of them."""
    if not pa.types.is_struct(kind):
        return kind in BYTES | TEXT
    parts = {name: kind.field(name).type for name in ("bytes", "path") if kind.get_field_index(name) >= 0}
    return bool(parts) and parts.get("bytes", pa.null()) in BYTES and parts.get("path", pa.null()) in TEXT


def _beside(table: str, path: str, name: str) -> Path:
    """Find the image file that a cell names."""
    folder = os.path.abspath(os.path.dirname(table))
    found = os.path.normpath(os.path.join(folder, path))
    if os.path.commonpath([folder, found]) != folder:
        raise UserError(f"{name}: its path leads out of {readable(folder)}; put the images beside the parquet file")
    return Path(found)
