"""Image sources that are files, rows of parquet, and hub datasets."""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dove.data.dataset import ImageDataset, RawRecord
from dove.data.names import readable, readable_keys
from dove.data.reading import check_size
from dove.errors import UserError, one_line

PARQUET_CACHE_BYTES = 1 << 30
"""Decompressed row groups that one process keeps; what fits is decompressed once, however it is shuffled."""
MAX_GROUP_BYTES = 8 << 30
"""Row groups that say they are larger than this, decompressed, are refused."""


class FileImages(ImageDataset):
    """Image files. With a ``root`` keys are relative to it and its first-level folders are the classes."""

    def __init__(self, paths: Sequence[str], root: str | None = None):
        self.paths, self.root = list(paths), root
        folders = sorted({name for path in self.paths if (name := self._class_name(path)) is not None})
        self.classes = {name: label for label, name in enumerate(folders)}
        plain = all(readable(path) == path for path in self.paths)
        self._keys = {} if plain else readable_keys([self._relative(path) for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    def raw(self, index: int) -> RawRecord:
        path = self.paths[index]
        key = self._relative(path)
        name = self._class_name(path)
        metadata: dict[str, Any] = {"path": path}
        if name is not None:
            metadata |= {"label": self.classes[name], "name": readable(name)}
        return RawRecord(self._keys.get(key, key), readable(path), path, metadata)

    def _relative(self, path: str) -> str:
        return path if self.root is None else Path(path).relative_to(self.root).as_posix()

    def _class_name(self, path: str) -> str | None:
        if self.root is None:
            return None
        parts = Path(path).relative_to(self.root).parts
        return parts[0] if len(parts) > 1 else None


class ParquetImages(ImageDataset):
    """Rows of parquet files, in the order of the files; the other columns are the metadata.

    Row groups are read through a memory map when one of their rows is asked for, and the most recent are kept.

    Args:
        paths: the files.
        image_column: a struct ``{bytes, path}`` or plain encoded bytes.
        columns: which other columns become metadata; None for all.

    Raises:
        UserError: a file is no parquet or has no such columns.
    """

    def __init__(self, paths: Sequence[str], image_column: str = "image", columns: Sequence[str] | None = None):
        self.paths, self.image_column = list(paths), image_column
        self.columns = None if columns is None else [image_column, *(name for name in columns if name != image_column)]
        self._groups: list[tuple[str, int]] = []
        rows: list[int] = []
        for path in self.paths:
            file = _open_parquet(path)
            _check_columns(path, file.schema_arrow.names, self.columns or [image_column])
            _check_image_type(path, file.schema_arrow.field(image_column))
            self._groups += [(path, group) for group in range(file.num_row_groups)]
            rows += [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = [0, *accumulate(rows)]
        root = os.path.dirname(os.path.commonprefix(self.paths))
        self._stems = {
            path: readable(os.path.relpath(path, root or ".").removesuffix(".parquet")) for path in self.paths
        }
        self._first_group = {path: group for group, (path, _) in reversed(list(enumerate(self._groups)))}
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._damaged: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}  # every worker fills its own

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def blocks(self) -> Sequence[int]:
        return list(dict.fromkeys(self._starts))

    def raw(self, index: int) -> RawRecord:
        group = bisect_right(self._starts, index) - 1
        path = self._groups[group][0]
        row = index - self._starts[self._first_group[path]]
        table, offset = self._table(group), index - self._starts[group]
        metadata = {name: table[name][offset].as_py() for name in table.column_names if name != self.image_column}
        key, cell = f"{self._stems[path]}/{row:06d}", table[self.image_column][offset].as_py()
        if isinstance(cell, dict):
            data = cell.get("bytes")
            if cell.get("path"):
                metadata.setdefault("path", cell["path"])
        else:
            data = cell
        return RawRecord(key, f"{readable(path)} row {row}", data, metadata)

    def _table(self, group: int) -> pa.Table:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        if group in self._damaged:
            raise UserError(self._damaged[group])  # at once: an epoch asks for every row of it
        path, number = self._groups[group]
        try:
            file = _open_parquet(path)
            check_size(file.metadata.row_group(number).total_byte_size, f"{path}: row group {number}", MAX_GROUP_BYTES)
            # Single-threaded: worker processes are the parallelism, and Arrow's threads do not survive a fork.
            table = file.read_row_group(number, columns=self.columns, use_threads=False)
            if len(table) != self._starts[group + 1] - self._starts[group]:
                raise UserError(f"{path}: row group {number} has {len(table)} rows, its footer says otherwise")
        except (OSError, pa.ArrowException, MemoryError) as error:
            self._damaged[group] = f"{path}: damaged parquet file ({one_line(error)}); download or write it again"
            raise UserError(self._damaged[group]) from error
        except UserError as error:
            self._damaged[group] = str(error)
            raise
        self._cache[group] = table
        while len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > PARQUET_CACHE_BYTES:
            self._cache.popitem(last=False)
        return table


class TableImages(ImageDataset):
    """A map-style dataset of the ``datasets`` library whose image column holds undecoded ``{bytes, path}``."""

    def __init__(self, rows: Any, name: str, image_column: str):
        self.rows, self.name, self.image_column = rows, name, image_column

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self, index: int) -> RawRecord:
        row = dict(self.rows[index])
        cell, name = row.pop(self.image_column) or {}, f"{self.name} row {index}"
        source = cell.get("bytes")
        if not source and cell.get("path"):
            source = _downloaded(cell["path"], name)
        return RawRecord(f"{index:06d}", name, source, row)


def open_hub(name: str, image_column: str = "image", columns: Sequence[str] | None = None) -> TableImages:
    """A dataset of the Hugging Face hub, downloaded or from its cache: ``owner/name[/config][:split]`` (split: train).

    Raises:
        UserError: not reachable, no such dataset, or no such columns.
    """
    import datasets

    identity, _, split = name.partition(":")
    owner, title, *config = identity.split("/")
    repository = f"{owner}/{title}"
    _check_reachable(repository)
    try:
        rows = datasets.load_dataset(repository, *config, split=split or "train")
    except Exception as error:  # the library raises dozens of kinds, from the network to the files
        raise UserError(f"{name}: the hub dataset could not be opened ({one_line(error)})") from error
    wanted = None if columns is None else [image_column, *columns]
    _check_columns(name, rows.column_names, wanted or [image_column])
    if wanted is not None:
        rows = rows.select_columns(wanted)
    return TableImages(rows.cast_column(image_column, datasets.Image(decode=False)), name, image_column)


def _downloaded(path: str, name: str) -> Path:
    """A picture that the data set brought along as a file.

    Raises:
        UserError: if it lies elsewhere: a data set must not choose which files of this machine are read.
    """
    real = Path(path).resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in _hub_folders()):
        raise UserError(f"{name}: its path leads to {path}, outside what was downloaded; leave it out")
    return real


def _hub_folders() -> list[Path]:
    import datasets
    from huggingface_hub import constants

    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _check_reachable(repository: str) -> None:
    """One quick question before ``datasets`` starts its half minute of retries."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(repository, timeout=10)
    except RepositoryNotFoundError as error:
        raise UserError(f"{repository}: no such file or folder here and no such dataset on the hub") from error
    except Exception as error:
        raise UserError(
            f"{repository}: no such file or folder here, and the hub cannot be reached ({type(error).__name__}); "
            "check the spelling or the network, or set HF_HUB_OFFLINE=1 to use an earlier download"
        ) from error


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: not a readable parquet file ({one_line(error)}); download or write it again"
        ) from error


def _check_columns(source: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{source}: has no column '{missing[0]}'; its columns are {', '.join(present)}")


def _check_image_type(path: str, field: pa.Field) -> None:
    """Encoded bytes, or a struct with them. Text in particular is refused: it would be taken for the path of a file."""
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"{path}: its column '{field.name}' holds {field.type}, no encoded images; name another with --image-column"
        )
