"""Training examples from images with queries and boxes, in the parquet layout of ``dove data convert``.

The parquet has one row for each image: ``image`` ``{bytes, path}``, ``image_id``, and ``queries``, a list of
``{question, answer, bounding_box}`` with boxes in pixels of the stored image.
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import Dataset

from dove.data.dataset import ImageDataset, RawRecord, Record
from dove.data.query_batch import Ask, Box, QueryBatch, QueryExample
from dove.errors import UserError, as_text
from dove.processor import central_square, pil_to_tensor, resize_box

SLACK = 0.5  # Pixels that a box may reach over the image's edge: annotations round


@contextmanager
def located(where: str) -> Iterator[None]:
    """Report whatever is wrong with a value, such as that it is missing or of another type, with its place in the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]} is missing") from error
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise UserError(f"{where}: a value is missing or of another kind ({type(error).__name__}: {error})") from error


def as_box(values: Any) -> Box:
    """Convert a box to four floats, and raise ``UserError`` for what is none."""
    numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 4:
        raise UserError(f"{values!r} is no box; pass four numbers: x, y, width and height")
    x, y, width, height = map(float, values)
    return x, y, width, height


def check_boxes(boxes: Iterable[Box], size: tuple[int, int], where: str) -> None:
    """Make sure that boxes have an area and lie in an image of a size (width, height)."""
    for place, (x, y, width, height) in enumerate(boxes):
        starts, ends = min(x, y) >= -SLACK, x + width <= size[0] + SLACK and y + height <= size[1] + SLACK
        if not (starts and ends and min(width, height) > 0):  # NaN fails one of them
            raise UserError(
                f"{where}: bounding_box {place} is [{x:g}, {y:g}, {width:g}, {height:g}]; it is empty or reaches outside of "
                f"the image of {size[0]} x {size[1]} pixels"
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
        with located(where):
            question = as_text(entry["question"])
            boxes = tuple(as_box(box) for box in entry["bounding_box"] or () if box is not None)
        if not question.strip():
            raise UserError(f"{where}: question is {question!r}; it must be a text that is not empty")
        check_boxes(boxes, record.image.size, where)
        asks.append(Ask(question, boxes))
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
