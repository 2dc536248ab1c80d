"""Annotations of published data sets as queries with boxes, in one parquet layout."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from dove.data.json_files import read_json
from dove.data.progress_bar import ProgressBar
from dove.data.queries import as_box, located
from dove.data.query_batch import Box
from dove.data.reading import SUFFIXES, read_image
from dove.errors import UserError, as_text, one_line, replacing

SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "image_id": pa.string(),
        "queries": pa.list_(
            pa.struct(
                {"question": pa.string(), "answer": pa.string(), "bounding_box": pa.list_(pa.list_(pa.float64()))}
            )
        ),
    }
)
NULL_BOX = "boxes that are null"
ROWS_PER_GROUP = 256
SIDES = ("XMin", "XMax", "YMin", "YMax")  # Columns of a box in a *-vrd.csv, without the number of the object
NUMBERS = tuple(f"{side}{n}" for n in "12" for side in SIDES)
RELATIONS = ("RelationshipLabel", "RelationLabel")  # Names of the column with the relation, of which a file has one
TEXTS = ("ImageID", "LabelName1", "LabelName2")
CLASSES = ("label", "name")  # Our names for the columns of the class descriptions, whose header is a class like others
COLUMN_TYPES = dict.fromkeys((*CLASSES, *TEXTS, *RELATIONS), pa.string()) | dict.fromkeys(NUMBERS, pa.float64())
TEST_EVERY = 50  # Number of images of which one belongs to the part for tests


@dataclass(frozen=True)
class Annotation:
    """A question about an image with the boxes that answer it."""

    image_id: str
    question: str
    answer: str | None
    boxes: tuple[Box, ...]  # In pixels of the image
    shares: bool = False  # Whether boxes are in shares of the image's sides, from 0 to 1, instead


@dataclass
class Conversion:
    """Result of a conversion, with counts of what was left out, by reason."""

    images: int = 0
    queries: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)  # Text that names an example, by reason

    def skip(self, reason: str, example: str = "") -> None:
        """Count something that is left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        if example:
            self.examples.setdefault(reason, f" (such as {example})")

    def summary(self, relation: str = "queries about") -> str:
        """Summarise the counts in one line, with a phrase that stands between those of queries and of images."""
        lost = ", ".join(f"{count} {reason}{self.examples.get(reason, '')}" for reason, count in self.left_out.items())
        return f"{self.queries} {relation} {self.images} images" + (f"; left out: {lost}" if lost else "")


def visual_genome(annotations: Path, conversion: Conversion) -> list[Annotation]:
    """Read region descriptions (``region_descriptions.json``) or questions (``question_answers.json``) of Visual Genome.

    A question's boxes are those of the objects that it and its answer name; without any it is left out.
    """
    found: list[Annotation] = []
    for number, image in enumerate(_read_json(annotations, list)):
        with located(f"{annotations}: entry {number}"):
            image_id = str(image["id"] if "id" in image else image["image_id"])
            for region in image.get("regions", ()):
                box = _box([region[key] for key in ("x", "y", "width", "height")], conversion)
                phrase = as_text(region["phrase"])
                found += [] if box is None else [Annotation(image_id, phrase, None, (box,))]
            for pair in image.get("qas", ()):
                objects = [*pair.get("a_objects", ()), *pair.get("q_objects", ())]
                some = [_box([thing[key] for key in "xywh"], conversion) for thing in objects if {*"xywh"} <= {*thing}]
                boxes = tuple(box for box in some if box is not None)
                if not boxes:
                    conversion.skip("questions without boxes")
                    continue
                found.append(Annotation(image_id, as_text(pair["question"]), _answer(pair), boxes))
    return found


def coco(annotations: Path, conversion: Conversion) -> list[Annotation]:
    """Read COCO's ``instances_*.json`` as one query per category of an image, with the boxes of all its instances."""
    content = _read_json(annotations, dict)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{annotations}: {key} is missing or no list; pass an instances_*.json of COCO")
    with located(f"{annotations}: categories"):
        names = _by_id(content["categories"], "name")
    with located(f"{annotations}: images"):
        files = _by_id(content["images"], "file_name")
    boxes: dict[tuple[Any, Any], list[Box]] = {}
    for number, thing in enumerate(content["annotations"]):
        with located(f"{annotations}: annotation {number}"):
            image, category = thing["image_id"], thing["category_id"]
            for key, value, listed in (("image_id", image, files), ("category_id", category, names)):
                if value not in listed:
                    raise UserError(f"{key} {value!r} is not listed in the file; list it or take the annotation out")
            if (box := _box(thing.get("bbox"), conversion)) is not None:
                boxes.setdefault((image, category), []).append(box)
    return [Annotation(files[image], names[category], None, tuple(some)) for (image, category), some in boxes.items()]


def _by_id(entries: list[dict[str, Any]], column: str) -> dict[Any, str]:
    """Give one text of each entry by its id, which only one may have."""
    found: dict[Any, str] = {}
    for entry in entries:
        text = as_text(entry[column])
        if found.setdefault(entry["id"], text) != text:
            raise UserError(f"id {entry['id']!r} stands for {found[entry['id']]!r} and {text!r}; make ids unique")
    return found


def open_images(annotations: Path, conversion: Conversion, classes: Path | None = None) -> list[Annotation]:
    """Read Open Images' relations (``*-vrd.csv``) with its ``class-descriptions*.csv``.

    A relation becomes a query such as "a cup on a table" with the boxes of both objects, in shares of the image.
    """
    if classes is None:
        raise UserError("open-images needs --classes, its class-descriptions*.csv")
    names = dict(zip(*_read_csv(classes, CLASSES).to_pydict().values(), strict=True))
    table = _read_csv(annotations)
    relation = next((name for name in RELATIONS if name in table.column_names), None)
    missing = [name for name in (*TEXTS, *NUMBERS) if name not in table.column_names]
    if missing or relation is None:
        raise UserError(f"{annotations}: column {(missing or RELATIONS)[0]} is missing; pass a *-vrd.csv")
    found: dict[tuple[str, str], list[Box]] = {}
    for row in table.to_pylist():
        if any(row[name] in (None, "") for name in (*TEXTS, relation, *NUMBERS)):
            conversion.skip("relations with an empty column", row["ImageID"] or "")
            continue
        if unnamed := [row[name] for name in TEXTS[1:] if row[name] not in names]:
            conversion.skip(f"relations between classes that {classes.name} does not list", unnamed[0])
            continue
        corners = [[row[f"{side}{n}"] for side in SIDES] for n in "12"]
        first, second = ((left, upper, right - left, lower - upper) for left, right, upper, lower in corners)
        one, other = (names[row[name]] for name in TEXTS[1:])
        boxes = found.setdefault((row["ImageID"], relation_text(one, row[relation], other)), [])
        boxes += [box for box in dict.fromkeys((first, second)) if box not in boxes]
    return [Annotation(image, text, None, tuple(boxes), shares=True) for (image, text), boxes in found.items()]


def reference(annotations: Path, conversion: Conversion) -> list[Annotation]:
    """Read the reference's list of ``{"image_id", "question", "answer" or null, "bounding_box": [[x, y, w, h], ...]}``."""
    found = []
    for number, entry in enumerate(_read_json(annotations, list)):
        with located(f"{annotations}: entry {number}"):
            some = [_box(box, conversion) for box in entry["bounding_box"] or ()]
            boxes = tuple(box for box in some if box is not None)
            found.append(Annotation(str(entry["image_id"]), as_text(entry["question"]), _answer(entry), boxes))
    return found


def _answer(entry: dict[str, Any]) -> str | None:
    answer = entry.get("answer")
    return None if answer is None else as_text(answer)


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


def relation_text(first: str, relation: str, second: str) -> str:
    """Write a relation in words: "a cup on a table", or for "is", which gives an attribute, "a wooden table"."""
    first, second = first.lower(), second.lower()
    if relation == "is":
        return f"{_article(second)} {second} {first}"
    return f"{_article(first)} {first} {relation.replace('_', ' ')} {_article(second)} {second}"


def _article(noun: str) -> str:
    return "an" if noun[:1] in "aeiou" else "a"


CONVERTERS: dict[str, Callable[..., list[Annotation]]] = {
    "visual-genome": visual_genome,
    "open-images": open_images,
    "coco": coco,
    "reference": reference,
}


def in_part(image_id: str, part: str) -> bool:
    """Tell whether an image belongs to ``all``, ``test`` (one in ``TEST_EVERY``, by a hash of its id) or ``train``."""
    number = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return part == "all" or (number % TEST_EVERY == 0) == (part == "test")


def convert(
    kind: str, annotations: Path, images: Path, output: Path, *, classes: Path | None = None, part: str = "all"
) -> Conversion:
    """Write annotations and their images, or a part of the images (see ``in_part``), into one parquet file.

    Boxes are cut at the edges of their image. Those of which nothing is left, queries without any, and images that are missing
    or cannot be read are counted. A question that is asked more than once about an image becomes one with all boxes.
    """
    if kind not in CONVERTERS:
        raise UserError(f"no converter {kind!r}; there are {', '.join(CONVERTERS)} and stamps")
    conversion = Conversion()
    more = {"classes": classes} if kind == "open-images" else {}
    every = join_repeated(CONVERTERS[kind](annotations, conversion, **more))
    found = [annotation for annotation in every if in_part(annotation.image_id, part)]
    if every and not found:
        raise UserError(f"none of the images of {annotations} belongs to --part {part}; convert more of them at once")
    files = locate_images(images, (annotation.image_id for annotation in found), annotations)
    by_image: dict[str, list[Annotation]] = {}
    for annotation in found:
        if annotation.image_id in files:
            by_image.setdefault(annotation.image_id, []).append(annotation)
        else:
            conversion.skip("queries whose image is missing", annotation.image_id)
    if found and not by_image:
        raise UserError(
            f"{annotations}: none of its images is in {images}, such as {found[0].image_id!r}; check --images"
        )
    with replacing(output) as beside:
        with pq.ParquetWriter(beside, SCHEMA) as writer:
            for group in _groups(by_image, files, conversion):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
        if not conversion.queries:
            raise UserError(f"{annotations} gives no query with a box inside its image: {conversion.summary()}")
    return conversion


def locate_images(folder: Path, image_ids: Iterable[str], source: Path) -> dict[str, Path]:
    """Find the files of images below ``folder``, by image id; images that are missing are left out.

    An id is a path below the folder or, where only one file has it, a name; each with or without its suffix.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; pass the one with the images of {source}")
    named: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            below = path.relative_to(folder)
            for name in {below.as_posix(), below.with_suffix("").as_posix(), path.name, path.stem}:
                named[name].append(path)
    found: dict[str, Path] = {}
    for image_id in dict.fromkeys(image_ids):
        wanted = image_id.replace("\\", "/")
        paths = [folder / wanted] if folder / wanted in named[wanted] else named[wanted]
        if len(paths) > 1:
            one, two = (path.relative_to(folder) for path in paths[:2])
            raise UserError(
                f"{source}: image_id {image_id!r} is the name of {one} and of {two}; "
                "convert the folders one by one with --images, or write the folder into the id"
            )
        if paths:
            found[image_id] = paths[0]
    return found


def _groups(
    by_image: dict[str, list[Annotation]], files: dict[str, Path], conversion: Conversion
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for image_id, annotations in ProgressBar(by_image.items(), desc="queries"):
        try:
            size = read_image(files[image_id]).size
        except UserError:
            conversion.skip("images that cannot be read", files[image_id].name)
            continue
        queries = []
        for annotation in annotations:
            scale = size if annotation.shares else (1, 1)
            boxes = [box for box in (_clip(box, scale, size) for box in annotation.boxes) if box is not None]
            for _ in range(len(annotation.boxes) - len(boxes)):
                conversion.skip("boxes with nothing inside the image")
            if boxes and annotation.question.strip():
                queries.append({"question": annotation.question, "answer": annotation.answer, "bounding_box": boxes})
            else:
                conversion.skip("queries without words or boxes")
        if queries:
            conversion.images += 1
            conversion.queries += len(queries)
            image = {"bytes": files[image_id].read_bytes(), "path": files[image_id].name}
            group.append({"image": image, "image_id": image_id, "queries": queries})
        if len(group) == ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def _clip(box: Box, scale: tuple[int, int], size: tuple[int, int]) -> list[float] | None:
    x, y, width, height = (value * scale[place % 2] for place, value in enumerate(box))
    left, upper = max(x, 0.0), max(y, 0.0)
    right, lower = min(x + width, float(size[0])), min(y + height, float(size[1]))
    # NaN fails these comparisons, too.
    return [left, upper, right - left, lower - upper] if right > left and lower > upper else None


def _box(values: Any, conversion: Conversion) -> Box | None:
    """Convert a box to four floats; return None, and count it, where it or one of them is null."""
    if not values or (isinstance(values, list) and None in values):
        conversion.skip(NULL_BOX)
        return None
    return as_box(values)


def _read_json(path: Path, kind: type) -> Any:
    content = read_json(path)
    if not isinstance(content, kind):
        raise UserError(f"{path} must hold a {'list' if kind is list else 'table'}; it is of another kind")
    return content


def _read_csv(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a CSV file with a header, or with these columns."""
    try:
        with path.open("rb") as file:
            return csv.read_csv(
                file,
                read_options=csv.ReadOptions(column_names=columns),
                convert_options=csv.ConvertOptions(column_types=COLUMN_TYPES),
            )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except pa.ArrowException as error:
        raise UserError(f"{path} is not CSV as it should be: {one_line(error)}") from error
