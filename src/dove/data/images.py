"""Opening of image sources of every kind as one dataset of records."""

import glob
import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from dove.data.archives import TarImages
from dove.data.dataset import ConcatImages, ImageDataset, OnError, Record, Unreadable, summarise_unreadable
from dove.data.parquet import ParquetImages
from dove.data.reading import SUFFIXES, read_image, to_rgb
from dove.data.sources import FileImages, open_hub
from dove.errors import UserError

__all__ = ["ImageDataset", "Record", "Unreadable", "open_images", "read_image", "summarise_unreadable", "to_rgb"]

PathLike = str | os.PathLike[str]

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w.-]+)?(:[\w\[\]:%+]+)?")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def open_images(
    source: PathLike | Sequence[PathLike],
    *,
    image_column: str = "image",
    columns: Sequence[str] | None = None,
    limit: int | None = None,
    on_error: OnError = "raise",
) -> ImageDataset:
    """Open images, without reading them, as a map-style dataset in a fixed order.

    Args:
        source: a folder (all images below it, sorted by path; or its parquet files or tar shards), image files, parquet
            files, WebDataset shards (``.tar``), a glob, a range of shards ``{000..010}``, a hub dataset id
            ``owner/name[/config][:split]``, or a list of any of these, one after the other.
        image_column: the column of parquet files and hub datasets that holds the images: encoded bytes or a struct
            ``{bytes, path}``; in parquet files also paths of files beside them, and lists of all these.
        columns: other columns that go into ``Record.metadata``; None for all. Folders give ``label`` and ``name`` by
            their first-level folders.
        limit: number of records to keep, from the first on; None for all.
        on_error: ``skip`` to get an ``Unreadable`` for each record that cannot be read, ``raise`` for an exception.

    Raises:
        UserError: If nothing is there, it holds no image or has no such column, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} leaves no image; pass at least 1")
    given = [source] if isinstance(source, str | os.PathLike) else source
    names = [name for item in given for name in _expand(os.fspath(item))]
    if not names:
        raise UserError("no image source is given; name a folder, files, parquet, .tar shards or a hub dataset")
    if len(names) == 1 and _kind(names[0]) == "image" and not os.path.exists(names[0]):
        raise UserError(f"{names[0]}: no such file; check the path")
    parts: list[ImageDataset] = []
    for kind, run in groupby(names, _kind):
        if kind == "folder":
            parts += [_open_folder(name, image_column, columns, alone=len(names) == 1) for name in run]
        elif kind == "hub":
            parts += [open_hub(name, image_column, columns) for name in run]
        else:  # files of one kind as one dataset, so that thousands of files are not thousands of datasets
            parts.append(_open_files(list(run), kind, image_column, columns))
    dataset = parts[0] if len(parts) == 1 else ConcatImages(parts)
    if not len(dataset):
        raise UserError(f"{source}: holds no images")
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    dataset.on_error = on_error
    return dataset


def _expand(name: str) -> list[str]:
    """List the names that a range ``{000..010}`` or a glob stands for, sorted; other names stand for themselves."""
    if os.path.exists(name):
        return [name]
    if span := _RANGE.search(name):
        low, high = span.groups()
        numbers = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
        return [path for number in numbers for path in _expand(name.replace(span.group(), number, 1))]
    found = glob.glob(name, recursive=True) if glob.has_magic(name) else []
    return sorted(path for path in found if os.path.isdir(path) or _file_kind(path)) or [name]


def _kind(name: str) -> str:
    """Tell what a name stands for: a folder, a hub dataset, or a file of images, of parquet or of tar."""
    if os.path.isdir(name):
        return "folder"
    kind, magic = _file_kind(name), glob.has_magic(name)
    if os.path.exists(name):
        if not kind and name.lower().endswith(_ARCHIVES):
            raise UserError(f"{name}: an archive; unpack it first and pass the folder")
        return kind or "image"
    if kind and not magic:
        return kind
    if _HUB_ID.fullmatch(name):
        return "hub"
    wrong = "no file matches; check the pattern" if magic else "no such file or folder; check the path"
    raise UserError(f"{name}: {wrong}")


def _file_kind(path: str) -> str | None:
    """Tell a file's kind by its suffix, where that is known."""
    suffix = os.path.splitext(path)[1].lower()
    return {".parquet": "parquet", ".tar": "tar"}.get(suffix) or ("image" if suffix in SUFFIXES else None)


def _open_files(
    paths: list[str], kind: str, image_column: str, columns: Sequence[str] | None, root: str | None = None
) -> ImageDataset:
    if kind == "parquet":
        return ParquetImages(paths, image_column, columns)
    return TarImages(paths) if kind == "tar" else FileImages(paths, root)


def _open_folder(folder: str, image_column: str, columns: Sequence[str] | None, *, alone: bool) -> ImageDataset:
    """Open a folder; keys start below it where it is ``alone``, for two of them may hold files of the same name."""
    found: dict[str, list[str]] = {}
    files = _walk(folder)
    for path in files:
        if (kind := _file_kind(path)) is not None:
            found.setdefault(kind, []).append(path)
    if len(found) > 1:
        raise UserError(f"{folder}: holds files of several kinds ({', '.join(sorted(found))}); name the ones you mean")
    if not found:
        archives = sum(path.lower().endswith(_ARCHIVES) for path in files)
        advice = f"unpack its {archives} archives first" if archives else "image files end in .jpg, .png, ..."
        raise UserError(f"{folder}: holds no images, parquet files or .tar shards; {advice}")
    kind, paths = found.popitem()
    return _open_files(paths, kind, image_column, columns, folder if alone else None)


def _walk(folder: str) -> list[str]:
    """List every visible file below ``folder``, each link followed once, sorted by the parts of its path."""
    seen: set[str] = set()
    files: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: Path(path).parts)
