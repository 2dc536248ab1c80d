"""Image files and hub datasets as image sources."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dove.data.dataset import ImageDataset, RawRecord
from dove.data.parquet import require_columns
from dove.errors import UserError, one_line, readable


class FileImages(ImageDataset):
    """Image files. With a ``root``, keys are relative to it and its first-level folders are the classes."""

    def __init__(self, paths: Sequence[str], root: str | None = None):
        self.paths, self.root = list(paths), root
        folders = {name for path in self.paths if (name := self._class_name(path)) is not None}
        self.classes = {name: label for label, name in enumerate(sorted(folders))}

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> Sequence[str]:
        """See `ImageDataset.files`."""
        return self.paths

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        path = self.paths[index]
        key = path if self.root is None else Path(path).relative_to(self.root).as_posix()
        name = self._class_name(path)
        metadata: dict[str, Any] = {"path": path}
        if name is not None:
            metadata |= {"label": self.classes[name], "name": readable(name)}
        return RawRecord(readable(key), readable(path), path, metadata)

    def _class_name(self, path: str) -> str | None:
        if self.root is None:
            return None
        parts = Path(path).relative_to(self.root).parts
        return parts[0] if len(parts) > 1 else None


class TableImages(ImageDataset):
    """A map-style dataset of the ``datasets`` library whose image column holds undecoded ``{bytes, path}``."""

    def __init__(self, rows: Any, name: str, image_column: str):
        self.rows, self.name, self.image_column = rows, name, image_column

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self, index: int) -> RawRecord:
        """See `ImageDataset.raw`."""
        row = dict(self.rows[index])
        cell, name = row.pop(self.image_column) or {}, f"{self.name} row {index}"
        source = cell.get("bytes")
        if not source and cell.get("path"):
            source = _downloaded(cell["path"], name)
        return RawRecord(f"{index:06d}", name, source, row)


def open_hub(name: str, image_column: str = "image", columns: Sequence[str] | None = None) -> TableImages:
    """Open a dataset of the Hugging Face hub, downloaded or cached: ``owner/name[/config][:split]`` (split: train)."""
    import datasets

    identity, _, split = name.partition(":")
    owner, title, *config = identity.split("/")
    repository = f"{owner}/{title}"
    _check_reachable(repository)
    try:
        rows = datasets.load_dataset(repository, *config, split=split or "train")
    except Exception as error:  # the library raises dozens of kinds, from the network to the files
        raise UserError(f"{name}: the hub dataset could not be opened ({one_line(error)})") from error
    wanted = [image_column, *(columns or ())]
    require_columns(name, rows.column_names, wanted)
    if columns is not None:
        rows = rows.select_columns(wanted)
    return TableImages(rows.cast_column(image_column, datasets.Image(decode=False)), name, image_column)


def _downloaded(path: str, name: str) -> Path:
    """Find a picture that the dataset holds as a file."""
    real = Path(path).resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in _hub_folders()):
        raise UserError(f"{name}: its path leads to {path}, outside what was downloaded; leave it out")
    return real


def _hub_folders() -> list[Path]:
    import datasets
    from huggingface_hub import constants

    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _check_reachable(repository: str) -> None:
    """Ask the hub once for a dataset, before ``datasets`` begins its half minute of retries."""
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
