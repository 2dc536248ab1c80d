"""Checks before anything is run: data that are missing, and images that a model was trained on."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from dove.errors import UserError
from dove.paper.models import Step, sources

COMPARED = 16  # Images of two sources whose contents are compared
CONFIG = "config.yaml"  # Settings of a training, beside the folder of its model


def check_data(what: str, needed: dict[str, str], data: Path | None) -> None:
    """Refuse a plan of which data are missing."""
    if needed and data is None:
        told = "; ".join(said if name == "." else f"{name} ({said})" for name, said in needed.items())
        raise UserError(f"{what} needs --data DIR with {told}")
    missing = [f"{data / name}: {said}" for name, said in needed.items() if data and not (data / name).exists()]
    if missing:
        raise UserError(f"{what} lacks {len(missing)} of {len(needed)} things in --data: {'; '.join(missing)}")


def refuse_training_images(steps: Sequence[Step]) -> None:
    """Refuse to measure a model on the images that it was trained on, by these steps or by the settings beside its folder."""
    _contents.cache_clear()
    trained = [source for step in steps if "train" in step.arguments[:2] for source in sources(step.arguments)]
    for step in steps:
        if not {"evaluate", "reconstruct"} & set(step.arguments[:2]):
            continue
        seen = [*trained, *_of_models(step.arguments)]
        for source in sources(step.arguments):
            found = next((one for one in seen if overlap(source, one)), None)
            if found is not None:
                raise UserError(
                    f"{source} would be measured on, and the model was trained on {found}; pass other images, as what is "
                    "learned by heart says nothing about quality"
                )


def overlap(one: str, other: str) -> bool:
    """Tell whether two sources are the same path, one lies in the other, or some image of the first is in the second, too.

    Contents are compared of a few images, evenly spaced in both sources, and of files of the same name.
    """
    first, second = Path(one), Path(other)
    if not (first.exists() and second.exists()):
        return one == other and "/" in one
    first, second = first.resolve(), second.resolve()
    if first == second or first in second.parents or second in first.parents:
        return True
    (some, names), (others, other_names) = _contents(first), _contents(second)
    shared = sorted(names.keys() & other_names.keys())[:COMPARED]
    return bool(some & others) or any(_digest(names[name]) == _digest(other_names[name]) for name in shared)


@lru_cache(maxsize=64)
def _contents(source: Path) -> tuple[frozenset[bytes], dict[str, str]]:
    """Hash a few images of a source, and of a folder list all files by name."""
    from dove.data.images import open_images
    from dove.data.sources import FileImages

    try:
        dataset = open_images(source, columns=[])
        spaced = [dataset.raw(index).source for index in range(0, len(dataset), max(1, len(dataset) // COMPARED))]
    except (OSError, UserError):  # reported when it is read
        return frozenset(), {}
    names = {Path(path).name: path for path in dataset.paths} if isinstance(dataset, FileImages) else {}
    return frozenset(_digest(image) for image in spaced if image is not None), names


def _digest(image: Any) -> bytes:
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    return sha256(content).digest()


def _of_models(arguments: Sequence[str]) -> Iterator[str]:
    """List the training data of the models among a command's arguments, where their settings lie beside them."""
    flag = ""
    for argument in arguments:
        flag = argument if argument.startswith("--") else flag
        folder = Path(argument.rpartition("=")[2])
        file = folder.parent / CONFIG
        if flag == "--model" and folder.is_dir() and file.is_file():
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(settings, dict) and settings.get("data"):
                yield str(settings["data"])
