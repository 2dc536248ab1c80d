"""Drawn images of two coloured shapes under the names and in the formats of the data sets that plans at paper scale ask for."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from dove.data.annotations import in_part
from dove.evaluation.datasets import KNOWN

SIDE = 256
IMAGES = 64  # Images to train on; a quarter as many others to measure on
COLOURS = {"red": (214, 48, 49), "green": (46, 184, 92), "blue": (41, 98, 214)}
SHAPES = ("circle", "square")


@dataclass(frozen=True)
class Shape:
    """A coloured shape, and its left, upper, right and lower side in pixels."""

    colour: str
    kind: str
    corners: tuple[int, int, int, int]

    @property
    def box(self) -> dict[str, int]:
        """Place and size as Visual Genome names them."""
        left, upper, right, lower = self.corners
        return {"x": left, "y": upper, "width": right - left, "height": lower - upper}


def draw(seed: str) -> tuple[Image.Image, list[Shape]]:
    """Draw two shapes, one on each half, on a smooth ground."""
    random = Random(seed)
    ground = Image.new("RGB", (3, 3))
    ground.putdata([(random.randrange(256), random.randrange(256), random.randrange(256)) for _ in range(9)])
    image = ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    shapes = []
    for half in (0, SIDE // 2):
        side = random.randrange(SIDE // 6, SIDE // 2)
        left, upper = half + random.randrange(SIDE // 2 - side), random.randrange(SIDE - side)
        corners = (left, upper, left + side, upper + side)
        shapes.append(Shape(random.choice(list(COLOURS)), random.choice(SHAPES), corners))
        pen = ImageDraw.Draw(image)
        paint = pen.ellipse if shapes[-1].kind == "circle" else pen.rectangle
        paint(corners, fill=COLOURS[shapes[-1].colour])
    return image, shapes


def draw_folder(folder: Path, names: Iterable[str]) -> dict[str, list[Shape]]:
    """Draw an image for each name into a folder and return what is on each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names:
        image, found[name] = draw(f"{folder.name}/{name}")
        image.save(folder / f"{name}.png")
    return found


def image_ids() -> list[str]:
    """Choose ids of the training images, of which two belong to the part that queries are tested on."""
    numbers = [str(number) for number in range(1, 100 * IMAGES)]
    test, train = ([number for number in numbers if in_part(number, part)] for part in ("test", "train"))
    return sorted([*test[:2], *train[: IMAGES - 2]])


def draw_data(data: Path, names: Iterable[str]) -> None:
    """Fill a folder with what plans ask for; folders of images that are no training sets get the images to measure on."""
    training = draw_folder(data / "imagenet-train", image_ids())
    measured = draw_folder(data / "imagenet-val", (f"val-{number}" for number in range(IMAGES // 4)))
    write_visual_genome(data / "visual-genome", training)
    write_open_images(data / "open-images", training)
    write_llava(data / "llava", training)
    for name in names:
        if name.endswith(".json") and "/" not in name:
            write_questions(data / name, measured)
        else:
            link(data / name, "imagenet-val")
    for part, count in {"train": 2, "test": 1}.items():
        for colour in COLOURS:
            draw_folder(data / "labelled" / part / colour, (f"{part}-{colour}-{number}" for number in range(count)))
    for name in KNOWN:
        link(data / name, "labelled")


def link(path: Path, target: str) -> None:
    """Let a folder go by a second name beside the first."""
    if not path.exists():
        path.symlink_to(target, target_is_directory=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_visual_genome(folder: Path, images: dict[str, list[Shape]]) -> None:
    """Write regions and questions about the shapes as Visual Genome does."""
    regions, questions = [], []
    for name, shapes in images.items():
        found = [{**shape.box, "phrase": f"a {shape.colour} {shape.kind}"} for shape in shapes]
        regions.append({"id": int(name), "regions": found})
        asked = []
        for shape in shapes:
            x, y, width, height = shape.box.values()
            place = {"x": x, "y": y, "w": width, "h": height}
            asked.append({"question": f"Where is the {shape.kind}?", "answer": "there", "a_objects": [place]})
        questions.append({"id": int(name), "qas": asked})
    write_json(folder / "region_descriptions.json", regions)
    write_json(folder / "question_answers.json", questions)
    link(folder / "images", "../imagenet-train")


def write_open_images(folder: Path, images: dict[str, list[Shape]]) -> None:
    """Write the relation of the two shapes as Open Images does, boxes in shares of the image."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = ("XMin", "YMin", "XMax", "YMax")
    columns = ["ImageID", "LabelName1", "LabelName2", *(f"{side}{n}" for n in "12" for side in sides)]
    with (folder / "train-vrd.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "RelationshipLabel"])
        for name, (one, other) in images.items():
            corners = [corner / SIDE for shape in (one, other) for corner in shape.corners]
            writer.writerow([name, f"/m/{one.kind}", f"/m/{other.kind}", *corners, "at"])
    (folder / "class-descriptions.csv").write_text("".join(f"/m/{kind},{kind.title()}\n" for kind in SHAPES))
    link(folder / "images", "../imagenet-train")


def write_llava(folder: Path, images: dict[str, list[Shape]]) -> None:
    """Write as many conversations as there are images, as LLaVA has them, about a quarter of the images: sooner seen."""
    records = []
    for name, shapes in list(images.items())[: len(images) // 4] * 4:
        said = []
        for shape, mark in zip(shapes, ("<image>\n", ""), strict=True):
            said.append({"from": "human", "value": f"{mark}What colour is the {shape.kind}?"})
            said.append({"from": "gpt", "value": shape.colour})
        records.append({"id": name, "image": f"{name}.png", "conversations": said})
    write_json(folder / "llava_v1_5_mix665k.json", records)
    link(folder / "images", "../imagenet-train")


def write_questions(file: Path, images: dict[str, list[Shape]]) -> None:
    """Write a question about each image, and for ScienceQA its choices."""
    choices = {"choices": list(COLOURS)} if file.name.startswith("scienceqa") else {}
    records = []
    for name, (shape, _) in images.items():
        question = {"question": f"What colour is the {shape.kind}?", "answers": [shape.colour]}
        records.append({"image": f"imagenet-val/{name}.png", **question, **choices})
    write_json(file, records)
