"""Annotated queries: the reference's JSON and its faults, converters on small files of the true formats, examples."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from dove.data.annotations import (
    Conversion,
    coco,
    convert,
    in_part,
    locate_images,
    reference,
    relation_text,
    visual_genome,
)
from dove.data.dataset import Record
from dove.data.images import open_images
from dove.data.queries import AnnotatedImages, queries_of
from dove.data.query_batch import Ask, QueryBatch, QueryExample
from dove.errors import UserError

GOOD = {
    "image_id": "image_0001",
    "question": "What is it?",
    "answer": "A dog",
    "bounding_box": [[10, 5, 5, 6], [2, 4, 7, 8]],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 40 x 20 pixels, ``image_0001.jpg`` and ``2.png``."""
    images = tmp_path / "images" / "below"
    images.mkdir(parents=True)
    ramp = np.zeros((20, 40, 3), dtype=np.uint8)
    ramp[..., 0] = np.arange(40) * 6
    Image.fromarray(ramp).save(images / "image_0001.jpg")
    Image.fromarray(ramp).save(images / "2.png")
    return tmp_path / "images"


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_reference_format_as_it_is(tmp_path: Path) -> None:
    null = {"image_id": "image_0002", "question": "Where?", "answer": None, "bounding_box": [[0, 0, 256, 256]]}
    first, second = reference(write(tmp_path / "a.json", [GOOD, null]), Conversion())
    assert (first.image_id, first.question, first.answer) == ("image_0001", "What is it?", "A dog")
    assert first.boxes == ((10, 5, 5, 6), (2, 4, 7, 8))
    assert second.answer is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"question": None}, "None is no text"),
        ({"question": "half a pair \ud83d"}, "no text in UTF-8"),
        ({"bounding_box": 3}, "of another kind"),
        ({"bounding_box": [[0, 0, 10**400, 5]]}, "too large"),
        ({"bounding_box": [[0, 0, 5]]}, r"\[0, 0, 5\] is no box; pass four numbers"),
        ({"bounding_box": [["left", 0, 5, 5]]}, "is no box"),
        ({"bounding_box": ["1234"]}, "'1234' is no box"),
        ({"bounding_box": [7]}, "7 is no box"),
    ],
)
def test_faults_name_the_entry(tmp_path: Path, fault: dict[str, Any], words: str) -> None:
    entry = {**GOOD, "image_id": "other", "question": "What?", **fault}
    with pytest.raises(UserError, match=f"entry 1: .*{words}"):
        reference(write(tmp_path / "a.json", [GOOD, entry]), Conversion())
    record = Record("here", Image.new("RGB", (40, 20)), {"queries": [GOOD, entry]})
    with pytest.raises(UserError, match=f"here: query 1: .*{words}"):
        queries_of(record)


@pytest.mark.parametrize(
    "box",
    [
        [1, 1, 0, 4],
        [0, 0, float("nan"), 5],
        [0, float("nan"), 5, 5],
        [-3, 0, 5, 5],
        [38, 0, 5, 5],
        [0, 0, 5, float("inf")],
    ],
    ids=repr,
)
def test_boxes_of_examples_have_an_area_inside_the_image(box: list[float]) -> None:
    queries = [{"question": "What?", "bounding_box": [[0, 0, 40.5, 20], box]}]
    with pytest.raises(
        UserError, match="here: query 0: bounding_box 1 is .*; it is empty or reaches outside of the image"
    ):
        queries_of(Record("here", Image.new("RGB", (40, 20)), {"queries": queries}))


@pytest.mark.parametrize(("content", "words"), [("{", "not JSON"), ({}, "must hold a list"), ([3], "entry 0: ")])
def test_files_that_are_no_annotations(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        reference(write(tmp_path / "a.json", content), Conversion())
    with pytest.raises(UserError, match="entry 0: bounding_box is missing"):
        reference(write(tmp_path / "b.json", [{"image_id": "a", "question": "b"}]), Conversion())


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_reference_to_parquet_and_back(tmp_path: Path, folder: Path) -> None:
    source = write(
        tmp_path / "a.json", [GOOD, {**GOOD, "question": "And?", "bounding_box": [[30, 10, 20, 5], [50, 0, 5, 5]]}]
    )
    done = convert("reference", source, folder, tmp_path / "out.parquet")
    assert done.summary() == "2 queries about 1 images; left out: 1 boxes with nothing inside the image"
    (row,) = rows(tmp_path / "out.parquet")
    assert row["image_id"] == "image_0001"
    assert row["image"]["bytes"] == (folder / "below" / "image_0001.jpg").read_bytes()
    assert row["queries"][1] == {"question": "And?", "answer": "A dog", "bounding_box": [[30, 10, 10, 5]]}


def test_images_that_are_missing_or_damaged_are_counted_and_named(tmp_path: Path, folder: Path) -> None:
    (folder / "damaged.png").write_bytes(b"no picture")
    entries = [GOOD, {**GOOD, "image_id": "nowhere"}, {**GOOD, "image_id": "damaged"}]
    done = convert("reference", write(tmp_path / "a.json", entries), folder, tmp_path / "out.parquet")
    assert done.summary() == (
        "1 queries about 1 images; left out: 1 queries whose image is missing (such as nowhere), "
        "1 images that cannot be read (such as damaged.png)"
    )
    with pytest.raises(UserError, match="none of its images is in .*, such as 'nowhere'; check --images"):
        convert("reference", write(tmp_path / "b.json", entries[1:2]), folder, tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()


def test_a_conversion_that_fails_leaves_the_earlier_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out" / "queries.parquet"
    convert("reference", write(tmp_path / "a.json", [GOOD]), folder, output)
    before = output.read_bytes()
    outside = write(tmp_path / "b.json", [{**GOOD, "bounding_box": [[90, 90, 5, 5]]}])
    with pytest.raises(UserError, match="gives no query with a box"):
        convert("reference", outside, folder, output)
    with monkeypatch.context() as patch:
        patch.setattr("dove.data.annotations.read_image", lambda path: 1 / 0)  # a fault halfway
        with pytest.raises(ZeroDivisionError):
            convert("reference", tmp_path / "a.json", folder, output)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]
    with pytest.raises(UserError, match="it is a folder"):
        convert("reference", tmp_path / "a.json", folder, output.parent)


@given(st.text(min_size=1, max_size=20))
def test_an_image_is_for_training_or_for_tests(image_id: str) -> None:
    assert in_part(image_id, "all")
    assert in_part(image_id, "train") != in_part(image_id, "test")


def test_files_about_the_same_images_are_parted_alike(tmp_path: Path, folder: Path) -> None:
    assert 150 < sum(in_part(str(number), "test") for number in range(10_000)) < 250
    kept, other = ("train", "test") if in_part("image_0001", "train") else ("test", "train")
    source = write(tmp_path / "a.json", [GOOD])
    assert convert("reference", source, folder, tmp_path / "a.parquet", part=kept).images == 1
    with pytest.raises(UserError, match=f"belongs to --part {other}"):
        convert("reference", source, folder, tmp_path / "b.parquet", part=other)


def test_a_repeated_question_has_all_its_boxes(tmp_path: Path, folder: Path) -> None:
    entries = [
        {**GOOD, "answer": None, "bounding_box": [[0, 0, 5, 5], [1, 1, 5, 5]]},
        {**GOOD, "question": "And?"},
        {**GOOD, "answer": "A dog", "bounding_box": [[1, 1, 5, 5], [2, 2, 5, 5]]},
    ]
    convert("reference", write(tmp_path / "a.json", entries), folder, tmp_path / "out.parquet")
    first, second = rows(tmp_path / "out.parquet")[0]["queries"]
    boxes = [[0, 0, 5, 5], [1, 1, 5, 5], [2, 2, 5, 5]]
    assert first == {"question": GOOD["question"], "answer": "A dog", "bounding_box": boxes}
    assert second["question"] == "And?"


def test_null_boxes_are_counted_and_left_out(tmp_path: Path, folder: Path) -> None:
    def converted(kind: str, content: Any) -> str:
        return convert(kind, write(tmp_path / "a.json", content), folder, tmp_path / "out.parquet").summary()

    told = "1 queries about 1 images; left out: {}"
    entries = [
        {**GOOD, "bounding_box": [[0, 0, 5, 5], None]},
        {**GOOD, "question": "a", "bounding_box": None},
        {**GOOD, "question": "b", "bounding_box": []},
    ]
    assert converted("reference", entries) == told.format("1 boxes that are null, 2 queries without words or boxes")
    region = {"phrase": "wall", "x": 1, "y": 2, "width": 10, "height": 11}
    genome = [{"id": 2, "regions": [region, {**region, "x": None}]}]
    assert converted("visual-genome", genome) == told.format("1 boxes that are null")
    instance = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}
    without = {key: value for key, value in instance.items() if key != "bbox"}
    objects = {
        "images": [{"id": 1, "file_name": "2.png"}],
        "categories": [{"id": 7, "name": "cup"}],
        "annotations": [instance, {**instance, "bbox": None}, {**instance, "bbox": []}, without],
    }
    assert converted("coco", objects) == told.format("3 boxes that are null")


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Two folders with files of the same name and other pictures."""
    for name, level in (("A", 10), ("B", 20)):
        (tmp_path / "twins" / name).mkdir(parents=True)
        Image.new("RGB", (40, 20), (level, 0, 0)).save(tmp_path / "twins" / name / "1.png")
    return tmp_path / "twins"


@pytest.mark.parametrize("image_id", ["1", "1.png"])
def test_a_name_of_two_images_is_refused_with_both(image_id: str, twins: Path) -> None:
    with pytest.raises(UserError, match=f"image_id '{image_id}' is the name of A/1.png and of B/1.png; convert"):
        locate_images(twins, [image_id], Path("a.json"))


def test_names_are_told_apart_by_their_folders(twins: Path) -> None:
    found = locate_images(twins, ["A/1.png", "B/1", "B\\1.png", "twins/A/1.png", "2"], Path("a.json"))
    assert found == {"A/1.png": twins / "A" / "1.png", "B/1": twins / "B" / "1.png", "B\\1.png": twins / "B" / "1.png"}
    (twins / "1.png").write_bytes((twins / "A" / "1.png").read_bytes())
    assert locate_images(twins, ["1.png"], Path("a.json")) == {"1.png": twins / "1.png"}


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode())
    assert convert("reference", path, folder, tmp_path / "out.parquet").queries == 1


def test_visual_genome(tmp_path: Path, folder: Path) -> None:
    region = {"region_id": 1, "image_id": 2, "phrase": "a red wall", "x": 1, "y": 2, "width": 10, "height": 11}
    descriptions = write(tmp_path / "region_descriptions.json", [{"id": 2, "regions": [region]}])
    convert("visual-genome", descriptions, folder, tmp_path / "a.parquet")
    expected = {"question": "a red wall", "answer": None, "bounding_box": [[1, 2, 10, 11]]}
    assert rows(tmp_path / "a.parquet")[0]["queries"] == [expected]

    thing = {"object_id": 5, "synset": "wall.n.01", "x": 3, "y": 4, "w": 5, "h": 6}
    pairs = [
        {
            "qa_id": 1,
            "image_id": 2,
            "question": "What is red?",
            "answer": "The wall.",
            "a_objects": [thing],
            "q_objects": [],
        },
        {"qa_id": 2, "image_id": 2, "question": "When?", "answer": "Daytime.", "a_objects": [], "q_objects": []},
    ]
    done = convert(
        "visual-genome", write(tmp_path / "qa.json", [{"id": 2, "qas": pairs}]), folder, tmp_path / "b.parquet"
    )
    assert rows(tmp_path / "b.parquet")[0]["queries"] == [
        {"question": "What is red?", "answer": "The wall.", "bounding_box": [[3, 4, 5, 6]]}
    ]
    assert done.left_out == {"questions without boxes": 1}
    for without, key in (
        ({"regions": [region | {"phrase": None}]}, "d"),
        ({"qas": [pairs[0] | {"question": None}]}, "e"),
    ):
        path = write(tmp_path / f"{key}.json", [{"id": 2, **without}])
        with pytest.raises(UserError, match="entry 0: None is no text"):
            convert("visual-genome", path, folder, tmp_path / "c.parquet")
    del region["phrase"]
    with pytest.raises(UserError, match="entry 0: phrase is missing"):
        convert(
            "visual-genome",
            write(tmp_path / "c.json", [{"id": 2, "regions": [region]}]),
            folder,
            tmp_path / "c.parquet",
        )


def test_open_images(tmp_path: Path, folder: Path) -> None:
    classes = write(tmp_path / "classes.csv", "LabelName,DisplayName\n/m/1,Cup\n/m/2,Table\n/m/3,Wooden\n")
    relations = write(
        tmp_path / "train-vrd.csv",
        "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel\n"
        "2,/m/1,/m/2,0.25,0.5,0.0,0.5,0.0,1.0,0.5,1.0,on\n"
        "2,/m/2,/m/3,0.0,1.0,0.5,1.0,0.0,1.0,0.5,1.0,is\n"
        "2,/m/2,/m/9,0.0,1.0,0.5,1.0,0.0,1.0,0.5,1.0,on\n"
        "2,/m/1,/m/2,0.25,0.5,0.0,0.5,0.0,1.0,0.5,1.0,\n",
    )
    done = convert("open-images", relations, folder, tmp_path / "a.parquet", classes=classes)
    assert done.left_out == {
        "relations between classes that classes.csv does not list": 1,
        "relations with an empty column": 1,
    }
    assert rows(tmp_path / "a.parquet")[0]["queries"] == [
        {"question": "a cup on a table", "answer": None, "bounding_box": [[10, 0, 10, 10], [0, 10, 40, 10]]},
        {"question": "a wooden table", "answer": None, "bounding_box": [[0, 10, 40, 10]]},
    ]
    with pytest.raises(UserError, match="--classes"):
        convert("open-images", relations, folder, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="column ImageID is missing"):
        convert("open-images", classes, folder, tmp_path / "b.parquet", classes=classes)


def test_relations_in_words() -> None:
    assert relation_text("Man", "inside_of", "Airplane") == "a man inside of an airplane"


def test_coco(tmp_path: Path, folder: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "image_0001.jpg", "width": 40, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 6, 7, 8], "iscrowd": 0},
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    convert("coco", write(tmp_path / "instances.json", content), folder, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet")[0]["queries"] == [
        {"question": "cat", "answer": None, "bounding_box": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    ]
    content["annotations"][0]["category_id"] = 4
    with pytest.raises(UserError, match="annotation 0: category_id 4 is not listed"):
        convert("coco", write(tmp_path / "b.json", content), folder, tmp_path / "b.parquet")


@pytest.mark.parametrize(("table", "column"), [("images", "file_name"), ("categories", "name")])
def test_an_id_of_two_images_or_categories_is_refused(tmp_path: Path, table: str, column: str) -> None:
    """The last of them once took the boxes of both."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    content[table] = [{"id": 0, column: "0.jpg"}, {"id": 0, column: "0.jpg"}]
    assert coco(write(tmp_path / "same.json", content), Conversion()) == []
    content[table].append({"id": 0, column: "1.jpg"})
    with pytest.raises(UserError, match=f"{table}: id 0 stands for '0.jpg' and '1.jpg'"):
        coco(write(tmp_path / "two.json", content), Conversion())


@pytest.mark.parametrize("wrong", [None, 5, "x", {}, [[1, 2]], float("inf"), 10**400], ids=repr)
def test_values_of_another_kind_are_told_with_their_place(tmp_path: Path, wrong: Any) -> None:
    """Of these many once ended in a traceback."""
    box, thing = {"x": 1, "y": 2, "width": 3, "height": 4}, {"x": 1, "y": 2, "w": 3, "h": 4}
    region = {"phrase": "a", **box}
    pair = {"question": "a", "answer": "b", "a_objects": [thing]}
    genome = [
        [wrong],
        [{"id": 1, "regions": wrong}],
        [{"id": 1, "regions": [wrong]}],
        [{"id": 1, "regions": [{**region, "x": wrong}]}],
        [{"id": 1, "qas": wrong}],
        [{"id": 1, "qas": [{**pair, "a_objects": wrong}]}],
        [{"id": 1, "qas": [{**pair, "a_objects": [{**thing, "w": wrong}]}]}],
    ]
    image, category = {"id": 1, "file_name": "a.jpg"}, {"id": 7, "name": "cup"}
    instance = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}
    whole = {"images": [image], "categories": [category], "annotations": [instance]}
    objects = [
        *({**whole, key: wrong} for key in whole),
        *({**whole, key: [wrong]} for key in whole),
        {**whole, "images": [{**image, "id": wrong}]},
        {**whole, "annotations": [{**instance, "image_id": wrong}]},
        {**whole, "annotations": [{**instance, "bbox": wrong}]},
        {**whole, "annotations": [{**instance, "bbox": [1, 2, 3, wrong]}]},
    ]
    for read, contents in ((visual_genome, genome), (coco, objects)):
        for number, content in enumerate(contents):
            path = write(tmp_path / f"{number}.json", content)
            with suppress(UserError):  # an empty table for a list of boxes, say, may pass
                assert all(len(box) == 4 for found in read(path, Conversion()) for box in found.boxes)


def test_examples_take_the_central_square_and_its_boxes(tmp_path: Path, folder: Path) -> None:
    """Of 40 x 20 pixels the square from 10 to 30 is left, at 4/5 of its size."""
    entries = [
        {**GOOD, "question": "left", "bounding_box": [[0, 0, 9, 20]]},
        {**GOOD, "question": "across", "bounding_box": [[5, 5, 10, 10]]},
    ]
    convert("reference", write(tmp_path / "a.json", entries), folder, tmp_path / "a.parquet")
    dataset = open_images(str(tmp_path / "a.parquet"))
    examples = AnnotatedImages(dataset, 16)
    example = examples[0, 0]
    assert example.image.shape == (3, 16, 16)
    assert example.asks == (Ask("across", ((0.0, 4.0, 4.0, 8.0),)),)
    assert examples.left_out == 1
    assert len(list(DataLoader(examples, sampler=[(0, 0), (1, 0)], num_workers=1, collate_fn=list))) == 2
    assert examples.left_out == 3  # counts of loader processes, too
    # Never mirrored, in whatever epoch: a query may say "left".
    assert all(torch.equal(examples[epoch, 0].image, example.image) for epoch in range(12))


def test_a_batch_keeps_its_ragged_boxes_apart() -> None:
    image = torch.zeros(3, 4, 4)
    batch = QueryBatch.collate(
        [
            QueryExample(image, (Ask("a", ((0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 2.0, 2.0))), Ask("b", ()))),
            QueryExample(image, (Ask("c", ((2.0, 2.0, 1.0, 1.0),)),)),
        ]
    )
    assert batch.queries == ("a", "b", "c")
    assert batch.image_of.tolist() == [0, 0, 1]
    assert batch.query_of.tolist() == [0, 0, 2]
    assert batch.boxes.shape == (3, 4)
    assert len(batch) == 2
