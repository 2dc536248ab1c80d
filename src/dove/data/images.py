"""Opening of image sources of every kind as one dataset of records."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
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
    if isinstance(source, str | os.PathLike):
        dataset = _open_one(os.fspath(source), image_column, columns)
    else:
        dataset = _open_list([os.fspath(item) for item in source], image_column, columns)
    if not len(dataset):
        raise UserError(f"{source}: holds no images")
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    dataset.on_error = on_error
    return dataset


def _open_list(sources: list[str], image_column: str, columns: Sequence[str] | None) -> ImageDataset:
    if not sources:
        raise UserError("no image source is given; name a folder, files, parquet, .tar shards or a hub dataset")
    parts = list(_open_runs(sources, image_column, columns))
    return parts[0] if len(parts) == 1 else ConcatImages(parts)


def _open_runs(sources: list[str], image_column: str, columns: Sequence[str] | None) -> Iterator[ImageDataset]:
    """Open each run of files of one kind as one dataset, so that thousands of files are not thousands of datasets."""
    run: list[str] = []
    for source, following in zip(sources, [*sources[1:], ""], strict=True):
        kind = _kind(source)
        if kind is None:
            # Keys with the folder's name in them: two folders of a list may hold files of the same name.
            opened = _open_one(source, image_column, columns)
            yield FileImages(opened.paths) if isinstance(opened, FileImages) and len(sources) > 1 else opened
            continue
        run.append(source)
        if _kind(following) != kind:
            yield _open_files(run, kind, image_column, columns)
            run = []


def _open_one(source: str, image_column: str, columns: Sequence[str] | None) -> ImageDataset:
    if os.path.isdir(source):
        return _open_folder(source, image_column, columns)
    if not os.path.exists(source):
        if matches := _expand(source):
            return _open_list(matches, image_column, columns)
        if _HUB_ID.fullmatch(source) and _kind(source) is None:
            return open_hub(source, image_column, columns)
        if glob.has_magic(source):
            raise UserError(f"{source}: no file matches; check the pattern")
        raise UserError(f"{source}: no such file or folder; check the path")
    if _is_archive(source):
        raise UserError(f"{source}: an archive; unpack it first and pass the folder")
    return _open_files([source], _kind(source) or "image", image_column, columns)


def _open_files(paths: list[str], kind: str, image_column: str, columns: Sequence[str] | None) -> ImageDataset:
    if kind == "parquet":
        return ParquetImages(paths, image_column, columns)
    return TarImages(paths) if kind == "tar" else FileImages(paths)


def _open_folder(folder: str, image_column: str, columns: Sequence[str] | None) -> ImageDataset:
    found: dict[str, list[str]] = {}
    files = _walk(folder)
    for path in files:
        if (kind := _kind(path)) is not None:
            found.setdefault(kind, []).append(path)
    if len(found) > 1:
        raise UserError(f"{folder}: holds files of several kinds ({', '.join(sorted(found))}); name the ones you mean")
    if not found:
        archives = sum(map(_is_archive, files))
        advice = f"unpack its {archives} archives first" if archives else "image files end in .jpg, .png, ..."
        raise UserError(f"{folder}: holds no images, parquet files or .tar shards; {advice}")
    kind, paths = found.popitem()
    return FileImages(paths, root=folder) if kind == "image" else _open_files(paths, kind, image_column, columns)


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


def _kind(path: str) -> str | None:
    """Tell a file's kind by its suffix; None for everything else: folders, patterns, hub ids, unknown suffixes."""
    if os.path.isdir(path) or not path or ((glob.has_magic(path) or _RANGE.search(path)) and not os.path.exists(path)):
        return None
    suffix = os.path.splitext(path)[1].lower()
    kinds = {".parquet": "parquet", ".tar": "tar"}
    return kinds.get(suffix) or ("image" if suffix in SUFFIXES else None)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(_ARCHIVES)


def _expand(pattern: str) -> list[str]:
    """List the files of a glob or of a range ``{000..010}``, sorted; none for a plain name."""
    if span := _RANGE.search(pattern):
        low, high = span.groups()
        numbers = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
        return [path for number in numbers for path in _expand_or_keep(pattern.replace(span.group(), number, 1))]
    if not glob.has_magic(pattern):
        return []
    return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isdir(path) or _kind(path) is not None)


def _expand_or_keep(pattern: str) -> list[str]:
    return _expand(pattern) or [pattern]
