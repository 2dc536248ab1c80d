"""Annotated queries: the reference's JSON, the parquet layout of ``dove data convert``, and training examples of both.

The JSON is a list of entries ``{"image_id", "question", "answer" or null, "bounding_box": [[x, y, w, h], ...]}`` with boxes in
pixels of the stored image. The parquet has one row for each image: ``image`` ``{bytes, path}``, ``image_id``, and ``queries``,
a list of ``{question, answer, bounding_box}``.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from dove.data.dataset import ImageDataset, RawRecord, Record
from dove.data.json_files import read_json
from dove.data.query_batch import Ask, Box, QueryBatch, QueryExample
from dove.errors import UserError
from dove.processor import central_square, pil_to_tensor, resize_box

KEYS = ("image_id", "question", "answer", "bounding_box")
NULL_BOX = "boxes that are null"
Skip = Callable[[str], object]
SLACK = 0.5  # Pixels that a box may reach over the image's edge: annotations round


@dataclass(frozen=True)
class Annotation:
    """A question about an image with the boxes, in pixels of the image, that answer it."""

    image_id: str
    question: str
    answer: str | None
    boxes: tuple[Box, ...]


def read_annotations(path: str | Path, skip: Skip = lambda _reason: None) -> list[Annotation]:
    """Read all entries of a reference annotation file; only checks that need the images are left out."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} must hold a list of entries with {', '.join(KEYS)}; it holds none")
    return [check_entry(entry, f"{path}: entry {number}", skip) for number, entry in enumerate(entries)]


def join_repeated(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Join annotations that ask the same about an image into one with all their boxes, each once."""
    joined: dict[tuple[str, str], Annotation] = {}
    for one in annotations:
        pair = one.image_id, one.question
        before = joined.get(pair)
        if before is not None:
            answer = before.answer if before.answer is not None else one.answer
            one = replace(one, answer=answer, boxes=tuple(dict.fromkeys(before.boxes + one.boxes)))
        joined[pair] = one
    return list(joined.values())


def check_entry(entry: Any, where: str, skip: Skip = lambda _reason: None) -> Annotation:
    """Check an entry and convert it to an annotation; boxes that are null are left out."""
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {entry!r}; it must be an object with {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in entry and key != "answer"]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing")
    image_id, question, answer = entry["image_id"], entry["question"], entry.get("answer")
    if not isinstance(image_id, str | int) or isinstance(image_id, bool) or not str(image_id).strip():
        raise UserError(f"{where}: image_id is {image_id!r}; it must name an image")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: question is {question!r}; it must be a text that is not empty")
    if answer is not None and not isinstance(answer, str):
        raise UserError(f"{where}: answer is {answer!r}; it must be a text or null")
    boxes = [] if entry["bounding_box"] is None else entry["bounding_box"]
    if not isinstance(boxes, list):
        raise UserError(f"{where}: bounding_box is {boxes!r}; it must be a list of [x, y, width, height]")
    for _ in range(boxes.count(None)):
        skip(NULL_BOX)
    kept = [_check_box(box, f"{where}: bounding_box {place}") for place, box in enumerate(boxes) if box is not None]
    return Annotation(str(image_id), question, answer, tuple(kept))


def _check_box(box: Any, where: str) -> Box:
    numbers = isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4
    if not numbers or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in box):
        raise UserError(f"{where} is {box!r}; it must be four numbers [x, y, width, height]")
    if not all(abs(value) <= sys.float_info.max for value in box):  # nor whole numbers that no float holds
        raise UserError(f"{where} is {box}; its numbers must be finite")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise UserError(f"{where} is {box}; its area is not above zero")
    if x < -SLACK or y < -SLACK:
        raise UserError(f"{where} is {box}; it begins outside of the image")
    return x, y, width, height


def check_inside(boxes: Iterable[Box], size: tuple[int, int], where: str) -> None:
    """Make sure that boxes lie in an image of a size (width, height)."""
    for place, (x, y, width, height) in enumerate(boxes):
        if min(x, y) < -SLACK or x + width > size[0] + SLACK or y + height > size[1] + SLACK:
            raise UserError(
                f"{where}: bounding_box {place} is [{x:g}, {y:g}, {width:g}, {height:g}]; it reaches outside of the image of "
                f"{size[0]} x {size[1]} pixels"
            )


class AnnotatedImages(Dataset[QueryExample]):
    """Training examples from records with ``queries`` in their metadata (the parquet layout).

    The central square of a picture is taken with its boxes, and never mirrored, since a query may say "left". Queries
    without any box left in the square are counted in ``left_out``; a picture without queries gets the query "null".
    """

    collate = staticmethod(QueryBatch.collate)

    def __init__(self, dataset: ImageDataset, image_size: int):
        self.dataset, self.image_size = dataset, image_size
        self._left_out = multiprocessing.Value("q", 0)  # which loader processes share

    @property
    def left_out(self) -> int:
        """Number of queries left out so far, by this process and its loader processes."""
        return int(self._left_out.value)

    def __len__(self) -> int:
        return len(self.dataset)

    def key(self, index: int) -> str:
        """Look up the name of a record."""
        return self.dataset.raw(index).key

    def __getitem__(self, sample: tuple[int, int]) -> QueryExample:
        _, index = sample
        record = self.dataset[index]
        if not isinstance(record, Record):
            raise UserError(f"{record.reason}; leave it out")
        asks = queries_of(record)
        left, upper, right, _ = frame = central_square(*record.image.size)
        scale, size = self.image_size / (right - left), float(self.image_size)
        kept = []
        for ask in asks:
            boxes = [_into(box, left, upper, scale, size) for box in ask.boxes]
            if inside := tuple(box for box in boxes if box is not None):
                kept.append(Ask(ask.query, inside))
        with self._left_out.get_lock():
            self._left_out.value += len(asks) - len(kept)
        pixels = pil_to_tensor(resize_box(record.image, frame, self.image_size))
        return QueryExample(pixels, tuple(kept) or (Ask("null", ()),))


def queries_of(record: Record) -> list[Ask]:
    """Read the queries about a record, in pixels of its image."""
    if "queries" in record.metadata:
        entries = record.metadata["queries"]
    elif "names" in record.metadata and "bboxes" in record.metadata:
        entries = _by_name(record)
    else:
        raise UserError(f"{record.key} has no queries; pass parquet that `dove data convert` wrote")
    asks = []
    for number, entry in enumerate(entries):
        where = f"{record.key}: query {number}"
        annotation = check_entry({"image_id": record.key, **entry}, where)
        check_inside(annotation.boxes, record.image.size, where)
        asks.append(Ask(annotation.question, annotation.boxes))
    return asks


def has_queries(record: RawRecord) -> bool:
    """Return True for a record with queries, or with the names and boxes of its objects."""
    return "queries" in record.metadata or {"names", "bboxes"} <= set(record.metadata)


def _by_name(record: Record) -> list[dict[str, Any]]:
    """Make one query of each name among a record's objects, with the boxes of all that have it."""
    names, boxes = record.metadata["names"], record.metadata["bboxes"]
    if not isinstance(names, list) or not isinstance(boxes, list) or len(names) != len(boxes):
        raise UserError(f"{record.key}: names and bboxes must be lists of equal length")
    return [
        {"question": name, "bounding_box": [box for other, box in zip(names, boxes, strict=True) if other == name]}
        for name in dict.fromkeys(names)
    ]


def _into(box: Box, left: float, upper: float, scale: float, size: float) -> Box | None:
    """Convert a box to pixels of the scaled crop; None where less than a pixel of it is left."""
    x, y, width, height = box
    x0, y0 = max((x - left) * scale, 0.0), max((y - upper) * scale, 0.0)
    x1, y1 = min((x + width - left) * scale, size), min((y + height - upper) * scale, size)
    if x1 - x0 < 1 or y1 - y0 < 1:
        return None
    return x0, y0, x1 - x0, y1 - y0
