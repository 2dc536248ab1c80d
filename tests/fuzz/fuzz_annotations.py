"""Fuzzes the readers of annotation JSON: whatever the file, annotations that keep their promises or one line of complaint.

python tests/fuzz/fuzz_annotations.py -max_total_time=60 [libFuzzer options] [corpus folder]
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dove.data"]):
    from dove.data.annotations import Conversion, coco, reference, visual_genome
    from dove.errors import UserError

FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name) / "annotations.json"
BOX = {"x": 1, "y": 2, "width": 3, "height": 4}
THING = {"x": 1, "y": 2, "w": 3, "h": 4}
DOCUMENTS = [
    [{"image_id": "a", "question": "b", "answer": None, "bounding_box": [[1, 2, 3, 4], [0, 0, 5.5, 1]]}] * 2,
    [{"id": 1, "regions": [{"phrase": "a", **BOX}]}, {"image_id": 2, "regions": [{"phrase": "b", **BOX}]}],
    [{"id": 1, "qas": [{"question": "a", "answer": "b", "a_objects": [THING], "q_objects": [THING]}]}],
    {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 7, "name": "cup"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}],
    },
]
NUMBERS = [0, -1, 10**400, 1e308, float("nan"), float("inf"), -0.0, True]


def value(provider: atheris.FuzzedDataProvider) -> object:
    """Something to stand where something else should."""
    kind = provider.ConsumeIntInRange(0, 5)
    if kind == 0:
        return None
    if kind == 1:
        return provider.ConsumeUnicodeNoSurrogates(8)
    if kind == 2:
        return NUMBERS[provider.ConsumeIntInRange(0, len(NUMBERS) - 1)]
    if kind == 3:
        return [value(provider)] if provider.ConsumeBool() else []
    if kind == 4:
        return {"id": value(provider)} if provider.ConsumeBool() else {}
    return provider.ConsumeInt(8)


def spoil(node: object, provider: atheris.FuzzedDataProvider) -> object:
    """A document in which one thing is another or gone."""
    if not isinstance(node, list | dict) or not node or not provider.ConsumeIntInRange(0, 9):
        return value(provider)
    copy = dict(node) if isinstance(node, dict) else dict(enumerate(node))
    keys = list(copy)
    key = keys[provider.ConsumeIntInRange(0, len(keys) - 1)]
    if provider.ConsumeIntInRange(0, 9):
        copy[key] = spoil(copy[key], provider)
    else:
        del copy[key]
    return copy if isinstance(node, dict) else list(copy.values())


def one(data: bytes) -> None:
    """A file of raw bytes, or a document with a few things spoilt."""
    provider = atheris.FuzzedDataProvider(data)
    if not provider.ConsumeIntInRange(0, 9):
        FILE.write_bytes(data)
    else:
        found: object = DOCUMENTS[provider.ConsumeIntInRange(0, len(DOCUMENTS) - 1)]
        for _ in range(provider.ConsumeIntInRange(1, 3)):
            found = spoil(found, provider)
        FILE.write_text(json.dumps(found), encoding="utf-8")
    for read in (reference, visual_genome, coco):
        try:
            annotations = read(FILE, Conversion())
        except UserError as error:
            if "\n" in str(error):
                raise AssertionError(str(error)) from error
            continue
        for annotation in annotations:
            assert isinstance(annotation.image_id, str)
            assert annotation.answer is None or isinstance(annotation.answer, str)
            assert all(len(box) == 4 for box in annotation.boxes)
            assert isinstance(annotation.question, str)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
