"""Images of random colours under the names and in the formats of the data sets that plans at paper scale ask for.

All annotations tell of the same two shapes, whatever an image shows.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from PIL import Image

from dove.data.annotations import in_part
from dove.evaluation.datasets import KNOWN

SIDE = 256
IMAGES = 64  # Images to train on; a quarter as many others to measure on
SHAPES = {"circle": "red", "square": "blue"}
BOXES = {"circle": (16, 32, 96, 96), "square": (144, 80, 64, 64)}  # Left and upper side, width and height in pixels
QUESTIONS = {kind: f"What colour is the {kind}?" for kind in SHAPES}


def draw_folder(folder: Path, names: Iterable[str]) -> None:
    """Draw an image of nine colours that run into each other for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        colours = Image.frombytes("RGB", (3, 3), Random(f"{folder.name}/{name}").randbytes(27))
        colours.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{name}.png")


def image_ids() -> list[str]:
    """Choose ids of the training images, of which two belong to the part that queries are tested on."""
    numbers = [str(number) for number in range(1, 100 * IMAGES)]
    test, train = ([number for number in numbers if in_part(number, part)] for part in ("test", "train"))
    return sorted([*test[:2], *train[: IMAGES - 2]])


def draw_data(data: Path, names: Iterable[str]) -> None:
    """Fill a folder with what plans ask for; folders of images that are no training sets get the images to measure on."""
    training, measured = image_ids(), [f"val-{number}" for number in range(IMAGES // 4)]
    draw_folder(data / "imagenet-train", training)
    draw_folder(data / "imagenet-val", measured)
    for part, count in {"train": 2, "test": 1}.items():
        for colour in SHAPES.values():
            draw_folder(data / "labelled" / part / colour, (f"{part}-{colour}-{number}" for number in range(count)))
    write_annotations(data, training)
    for name in names:
        if name.endswith(".json") and "/" not in name:
            choices = {"choices": list(SHAPES.values())} if name.startswith("scienceqa") else {}
            asked = {"question": QUESTIONS["circle"], "answers": [SHAPES["circle"]], **choices}
            write_json(data / name, [{"image": f"imagenet-val/{image}.png", **asked} for image in measured])
        else:
            link(data / name, "imagenet-val")
    for name in KNOWN:
        link(data / name, "labelled")


def link(path: Path, target: str) -> None:
    """Let a folder go by a second name beside the first."""
    if not path.exists():
        path.symlink_to(target, target_is_directory=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def write_annotations(data: Path, names: list[str]) -> None:
    """Write two regions, two questions and a relation for each image, and as many conversations.

    The conversations are about a quarter of the images, which are so seen sooner.
    """
    for folder in ("visual-genome", "open-images", "llava"):
        (data / folder).mkdir(exist_ok=True)
        link(data / folder / "images", "../imagenet-train")
    regions, questions, corners = [], [], []
    said: list[dict[str, str]] = []
    for kind, (x, y, width, height) in BOXES.items():
        regions.append({"x": x, "y": y, "width": width, "height": height, "phrase": f"a {SHAPES[kind]} {kind}"})
        place = {"x": x, "y": y, "w": width, "h": height}
        questions.append({"question": f"Where is the {kind}?", "answer": "there", "a_objects": [place]})
        said.append({"from": "human", "value": QUESTIONS[kind] if said else f"<image>\n{QUESTIONS[kind]}"})
        said.append({"from": "gpt", "value": SHAPES[kind]})
        corners += [side / SIDE for side in (x, y, x + width, y + height)]
    genome, images = data / "visual-genome", data / "open-images"
    write_json(genome / "region_descriptions.json", [{"id": int(name), "regions": regions} for name in names])
    write_json(genome / "question_answers.json", [{"id": int(name), "qas": questions} for name in names])
    places = ",".join(f"{side}{number}" for number in (1, 2) for side in ("XMin", "YMin", "XMax", "YMax"))
    relation = ",".join(map(str, ("/m/circle", "/m/square", *corners, "at")))
    lines = [f"ImageID,LabelName1,LabelName2,{places},RelationshipLabel", *(f"{name},{relation}" for name in names)]
    (images / "train-vrd.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (images / "class-descriptions.csv").write_text("".join(f"/m/{kind},{kind.title()}\n" for kind in SHAPES))
    talks = [{"id": name, "image": f"{name}.png", "conversations": said} for name in names[: len(names) // 4] * 4]
    write_json(data / "llava" / "llava_v1_5_mix665k.json", talks)
