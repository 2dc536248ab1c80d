"""Labelled images for the probes: known datasets by name, parquet, class folders, hub datasets."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dove.data.dataset import ImageDataset, ImageSubset
from dove.data.sources import FileImages
from dove.errors import UserError
from dove.evaluation.common import Images

MIN_PER_CLASS = 2  # Training images of a class: one to learn from and one to validate on
LISTED = 5  # Greatest number of classes listed in a message
TEST_NAMES = ("test", "val", "validation")


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """Place of a known dataset on the Hugging Face hub."""

    identity: str
    train: str = "train"  # Split for training
    test: str = "test"  # Split for testing
    image_column: str = "image"
    label_column: str = "label"


KNOWN = {
    "cifar10": HubDataset(identity="uoft-cs/cifar10", image_column="img"),
    "cifar100": HubDataset(identity="uoft-cs/cifar100", image_column="img", label_column="fine_label"),
    "dtd": HubDataset(identity="tanganke/dtd"),
    "fgvc-aircraft": HubDataset(
        identity="HuggingFaceM4/FGVC-Aircraft", train="train+validation", label_column="variant"
    ),
    "food101": HubDataset(identity="ethz/food101", test="validation"),
    "stl10": HubDataset(identity="tanganke/stl10"),
    "sun397": HubDataset(identity="tanganke/sun397"),
    "imagenet100": HubDataset(identity="clane9/imagenet-100", test="validation"),
}


@dataclass(frozen=True, kw_only=True)
class Location:
    """Resolved source of labelled images."""

    sources: tuple[str, ...]  # Sources for ``open_images``
    image_column: str
    label_column: str
    name: str  # Name of the dataset in the rows of a report
    known: str | None = None  # Key in ``KNOWN`` of a dataset on the hub; None for local data and other hub ids


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Images with a class each."""

    name: str  # Name of the dataset
    images: Images
    classes: Mapping[str, str]  # Class of each record, by the record's key


def locate(
    sources: Sequence[str], role: str, image_column: str | None = None, label_column: str | None = None
) -> Location:
    """Resolve a source: a path, a hub id, or the name of a known dataset.

    A known name is first looked up in the folder that the environment variable DOVE_DATA names, else in ``data``: NAME-train
    and NAME-test as parquet or folders, or the folders NAME/train and NAME/test. Only then it means the hub.
    """
    columns = {"image_column": image_column or "image", "label_column": label_column or "label"}
    word = sources[0] if len(sources) == 1 else ""
    if not re.fullmatch(r"[\w-]+", word) or Path(word).exists():
        return Location(sources=tuple(sources), name=dataset_name(sources), **columns)
    name = known_name(word)
    if local := _local(name, role):
        return Location(sources=(local,), name=name, **columns)
    hub = KNOWN[name]
    split = hub.train if role == "train" else hub.test
    columns = {"image_column": image_column or hub.image_column, "label_column": label_column or hub.label_column}
    return Location(sources=(f"{hub.identity}:{split}",), name=name, known=name, **columns)


def known_name(word: str) -> str:
    """Find the known dataset of a name; hyphens, underscores and capitals don't matter."""
    plain = {re.sub(r"[-_]", "", name): name for name in KNOWN}
    wanted = re.sub(r"[-_]", "", word.lower())
    if wanted in plain:
        return plain[wanted]
    close = get_close_matches(wanted, plain, n=1)
    hint = f"did you mean {plain[close[0]]}? " if close else ""
    raise UserError(
        f"{word!r} is no file, no folder and no known data set; {hint}known are {', '.join(KNOWN)}; or pass labelled "
        "parquet, a folder of class folders, or a hub id owner/name:split"
    )


def dataset_name(sources: Sequence[str]) -> str:
    """Make a short name for a source: cifar10 for data/cifar10-test.parquet, photos for photos/test."""
    path = Path(sources[0].partition(":")[0])
    stem = path.stem if path.suffix in (".parquet", ".tar") else path.name
    if stem in ("train", *TEST_NAMES) and path.parent.name:
        stem = path.parent.name
    return re.sub(rf"[-_.](train|{'|'.join(TEST_NAMES)})$", "", stem) or sources[0]


def _local(name: str, role: str) -> str | None:
    root = Path(os.environ.get("DOVE_DATA") or "data")
    for part in ("train",) if role == "train" else TEST_NAMES:
        for path in (root / f"{name}-{part}.parquet", root / f"{name}-{part}", root / name / part):
            if path.exists():
                return str(path)
    return None


def load_labelled(location: Location, role: str, *, limit: int | None = None, seed: int = 0) -> LabelledImages:
    """Open a source and read its labels."""
    try:
        images = Images(location.sources, limit=limit, seed=seed, image_column=location.image_column)
    except UserError as error:
        if location.known is None:
            raise
        file = Path(os.environ.get("DOVE_DATA") or "data") / f"{location.known}-{role}.parquet"
        raise UserError(
            f"{location.known}: {error}; without network give {'--train-data' if role == 'train' else '--data'} a parquet "
            f"file with the columns image and label, or put it at {file}"
        ) from error
    classes = read_classes(images.dataset, location.label_column, ", ".join(location.sources))
    return LabelledImages(name=location.name, images=images, classes=classes)


def read_classes(dataset: ImageDataset, column: str, source: str) -> dict[str, str]:
    """Read the class of every record by its key. In class folders it is the name of the folder."""
    folders = isinstance(dataset.dataset if isinstance(dataset, ImageSubset) else dataset, FileImages)
    column = "name" if folders else column
    classes: dict[str, str] = {}
    for index in range(len(dataset)):
        try:
            record = dataset.raw(index)
        except (OSError, UserError):  # reported when the images themselves are read
            continue
        if column not in record.metadata:
            if folders:
                raise UserError(
                    f"{source}: some images lie in no class folder; a labelled folder is like {source}/CLASS/photo.jpg"
                )
            there = ", ".join(name for name in record.metadata if name != "path") or "none beside the images"
            raise UserError(
                f"{source}: has no labels: no column '{column}', its columns are {there}; pass --label-column"
            )
        classes[record.key] = _class(record.metadata[column], f"{record.name}, column '{column}'")
    return classes


def _class(value: Any, where: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str) or value == "":
        raise UserError(f"{where}: the label {value!r} is neither a whole number nor a word")
    return str(value)


def require_learnable(classes: Sequence[str]) -> None:
    """Make sure that a classifier can be trained and validated on images of these classes."""
    counts = Counter(classes)
    if len(counts) < 2:
        raise UserError(f"train: all {len(classes)} images are of one class; a probe needs at least 2 classes")
    rare = sorted(name for name, count in counts.items() if count < MIN_PER_CLASS)
    if rare:
        raise UserError(
            f"train: class {_listed(rare)} has one image alone; every class needs at least {MIN_PER_CLASS} (more images or a "
            "larger --train-limit)"
        )


def require_known_classes(train: LabelledImages, test: LabelledImages) -> None:
    """Make sure that the training images have every class of the test images, and are not the same images."""
    if train.images.sha256 == test.images.sha256:
        raise UserError("train and test are the same images; a probe is tested on images that it was not trained on")
    if extra := sorted(set(test.classes.values()) - set(train.classes.values())):
        raise UserError(f"train has no {_listed(extra)}, which test has; pass more training images of the same classes")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more
