"""Labelled sources: names, columns, class folders, and what cannot be learned from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dove.data import sources
from dove.errors import UserError
from dove.evaluation.datasets import (
    KNOWN,
    LabelledImages,
    dataset_name,
    known_name,
    load_labelled,
    locate,
    require_known_classes,
    require_learnable,
)


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def write_parquet(path: Path, columns: dict[str, list[Any]], image_column: str = "image", start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    encoded = []
    for number in range(start, start + count):
        picture(number).save(file := path.parent / "picture.png")
        encoded.append({"bytes": file.read_bytes(), "path": None})
        file.unlink()
    pq.write_table(pa.table({image_column: encoded, **columns}), path)
    return path


def class_folders(folder: Path, names: Sequence[str], start: int = 0) -> Path:
    for number, name in enumerate(names, start):
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / name / f"{number}.png")
    return folder


def load(source: Path | str, role: str = "train", **options: Any) -> LabelledImages:
    return load_labelled(locate([str(source)], role), role, **options)


def test_parquet_classes_are_its_labels(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "birds-train.parquet", {"label": [3, 1, 3], "name": ["a", "b", "c"]})
    found = load(file)
    assert list(found.classes.values()) == ["3", "1", "3"]
    assert found.name == "birds"


def test_class_folders_compare_by_name(tmp_path: Path) -> None:
    train = load(class_folders(tmp_path / "train", ["cat", "dog"]))
    test = load(class_folders(tmp_path / "test", ["dog", "cat", "dog"], start=9), "test")
    assert sorted(test.classes.values()) == ["cat", "dog", "dog"]
    require_known_classes(train, test)


def test_a_limit_draws_by_the_seed_and_labels_follow(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"label": list(range(20))})
    drawn = load(file, limit=5, seed=1)
    assert len(drawn.classes) == 5
    assert all(int(key.rpartition("/")[2]) == int(name) for key, name in drawn.classes.items())
    assert load(file, limit=5, seed=2).classes != drawn.classes


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"kind": ["x", "y"]}, image_column="photo")
    assert [*load_labelled(locate([str(file)], "test", "photo", "kind"), "test").classes.values()] == ["x", "y"]


@pytest.mark.parametrize(("word", "name"), [("CIFAR-10", "cifar10"), ("fgvc_aircraft", "fgvc-aircraft")])
def test_known_names_are_forgiving(word: str, name: str) -> None:
    assert known_name(word) == name


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UserError, match="did you mean cifar100") as caught:
        locate(["cifar1000"], "test")
    assert all(name in str(caught.value) for name in KNOWN)


def test_known_names_are_local_files_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOVE_DATA", str(tmp_path))
    assert locate(["dtd"], "train").sources == ("tanganke/dtd:train",)
    file = write_parquet(tmp_path / "dtd-train.parquet", {"label": [0, 1]})
    assert locate(["dtd"], "train").sources == (str(file),)
    folder = class_folders(tmp_path / "dtd" / "val", ["a", "b"])
    assert locate(["dtd"], "test").sources == (str(folder),)


def test_known_names_on_the_hub_have_their_columns_and_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []
    png = tmp_path / "x.png"
    picture(0).save(png)

    def load_dataset(*names: str, split: str) -> datasets.Dataset:
        asked.append((*names, split))
        rows = {"img": [{"bytes": png.read_bytes(), "path": None}] * 2, "fine_label": [4, 7]}
        return datasets.Dataset.from_dict(rows).cast_column("img", datasets.Image())

    monkeypatch.setenv("DOVE_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "_check_reachable", lambda repository: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = load("cifar100", "test")
    assert asked == [("uoft-cs/cifar100", "test")]
    assert list(found.classes.values()) == ["4", "7"]
    assert found.name == "cifar100"
    assert len(found.images) == 2


def test_without_network_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(repository: str) -> None:
        raise UserError(f"{repository}: the hub cannot be reached")

    monkeypatch.setenv("DOVE_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "_check_reachable", unreachable)
    with pytest.raises(
        UserError, match=r"stl10: .*cannot be reached.*give --train-data a parquet.*stl10-train\.parquet"
    ):
        load("stl10")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a", "b"]}, "has no labels: no column 'label', its columns are name; pass --label-column"),
        ({"label": [1, None]}, "row 1, column 'label': the label None is neither"),
        ({"label": [0.5, 1.0]}, "the label 0.5 is neither"),
        ({"label": [[1], [2]]}, "neither a whole number nor a word"),
        ({"label": ["", "a"]}, "neither a whole number nor a word"),
    ],
)
def test_missing_labels_are_named(columns: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(write_parquet(tmp_path / "a.parquet", columns))


def test_folders_without_classes_are_named(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    with pytest.raises(UserError, match="lie in no class folder"):
        load(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "a"], "of one class"),
        (["a", "b", "c"], "class 'a', 'b', 'c' has one image"),
        (["a", "a", "a", "b"], "class 'b' has one image"),
    ],
)
def test_too_few_images_are_refused(classes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_learnable(classes)


def test_two_images_of_two_classes_are_enough() -> None:
    require_learnable(["a", "b", "b", "a"])


def test_unknown_classes_and_equal_images_are_refused(tmp_path: Path) -> None:
    train = load(class_folders(tmp_path / "train", ["a", "b", "c"]))
    with pytest.raises(UserError, match="train has no 'd'"):
        require_known_classes(train, load(class_folders(tmp_path / "more", ["a", "b", "c", "d"], start=20), "test"))
    with pytest.raises(UserError, match="the same images"):
        require_known_classes(train, load(tmp_path / "train", "test"))


def test_test_images_may_lack_a_class(tmp_path: Path) -> None:
    train = load(class_folders(tmp_path / "train", ["a", "b", "c"]))
    require_known_classes(train, load(class_folders(tmp_path / "test", ["a", "b"], start=20), "test"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/cifar10-test.parquet", "cifar10"),
        ("photos/test", "photos"),
        ("birds-val.parquet", "birds"),
        ("owner/things:test", "things"),
        ("test.parquet", "test"),
    ],
)
def test_data_sets_get_short_names(source: str, name: str) -> None:
    assert dataset_name([source]) == name
