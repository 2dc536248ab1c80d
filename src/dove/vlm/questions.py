"""Benchmarks of Table 9 and their questions from local files."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.json_files import parse_lines, read_json
from dove.data.parquet import ParquetImages
from dove.data.sources import FileImages
from dove.errors import UserError
from dove.vlm.images import Glimpse, missing_images

LETTERS = "ABCDEFGHIJ"
WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Prompt and metric of a data set (Table 9)."""

    split: str  # The part of it that the paper reports
    metric: str  # A name in ``METRICS``
    prompt: str = ""  # Text behind every question
    kinds: Mapping[str, str] = field(default_factory=dict)  # Patterns of questions by kind; the first that fits counts

    def kind(self, text: str) -> str | None:
        """Name the kind of a question, where the benchmark tells kinds apart."""
        return next((kind for kind, pattern in self.kinds.items() if re.match(pattern, text)), None)


EASY_VQA_KINDS = {"colour": r"what.* colou?r\b", "shape": r"what\b", "yes or no": ""}
BENCHMARKS: dict[str, Benchmark] = {
    "easy-vqa": Benchmark(split="test", metric="exact", kinds=EASY_VQA_KINDS),
    "vqav2": Benchmark(split="val", metric="vqa"),
    "gqa": Benchmark(split="val", metric="exact"),
    "okvqa": Benchmark(split="val", metric="vqa"),
    "textvqa": Benchmark(split="val", metric="vqa", prompt=WORD),
    "docvqa": Benchmark(split="test", metric="anls"),
    "infovqa": Benchmark(split="test", metric="anls"),
    "chartqa": Benchmark(split="test", metric="relaxed"),
    "scienceqa": Benchmark(split="test, questions with an image", metric="option", prompt=LETTER),
}  # By name


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one image."""

    key: str
    text: str  # Without image marks
    answers: tuple[str, ...]  # All that are accepted
    glimpse: Glimpse


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions and the source of their images; questions about an image stand together."""

    images: ImageDataset
    items: tuple[Question, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def sha256(self) -> str:
        """SHA-256 of the questions, their answers and the numbers of their images."""
        text = json.dumps([[item.text, item.answers, item.glimpse.index] for item in self.items])
        return hashlib.sha256(text.encode()).hexdigest()

    def draw(self, limit: int | None, seed: int) -> "Questions":
        """At most so many, drawn at random, in their order."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UserError(f"limit={limit} leaves no question; pass at least 1")
        drawn = np.sort(np.random.default_rng(seed).choice(len(self), limit, replace=False))
        return Questions(self.images, tuple(self.items[index] for index in drawn))


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name."""
    if name not in BENCHMARKS:
        raise UserError(f"no benchmark {name!r}; the benchmarks are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def open_questions(source: str, images: str = "") -> Questions:
    """Questions with their accepted answers.

    Args:
        source: parquet with an ``image`` column, or a .json or .jsonl file of objects with ``image`` (a path). Beside
            it ``questions`` and ``answers`` (as many), or ``question`` and ``answer`` (one) or ``answers`` (all that are
            accepted), and with ``choices`` the answer as a number, a letter or the choice itself.
        images: the folder that image paths start from; the file's own by default.

    Raises:
        UserError: naming the record that does not do.
    """
    if source.endswith((".json", ".jsonl")):
        found = _read_json(Path(source), Path(images or Path(source).parent))
    else:
        found = _read_parquet(source)
    if not found.items:
        raise UserError(f"{source}: holds no question")
    return found


def _read_parquet(source: str) -> Questions:
    dataset = open_images(source)
    if not isinstance(dataset, ParquetImages):
        raise UserError(f"{source}: questions come from .json, .jsonl or parquet files")
    rows = enumerate(map(dataset.raw, range(len(dataset))))
    items = (item for index, raw in rows for item in _questions(raw.metadata, Glimpse(index=index), raw.name))
    return Questions(dataset, tuple(items))


def _read_json(file: Path, folder: Path) -> Questions:
    index_of: dict[str, int] = {}
    items: list[Question] = []
    for number, record in enumerate(read_records(file, "objects with image, question and answer")):
        key = f"{file} record {number}"
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            raise UserError(f"{key}: must be an object with image (a path), question and answer")
        items += _questions(record, Glimpse(index=index_of.setdefault(record["image"], len(index_of))), key)
    missing, told = missing_images(index_of, folder)
    if missing:
        raise UserError(f"{file}: {told}; pass the right folder with --images")
    return Questions(FileImages([str(folder / path) for path in index_of]), tuple(items))


def read_records(file: Path, what: str) -> list[Any]:
    """Read the list in a .json file, or the lines of a .jsonl file."""
    records = read_json(file, parse_lines) if file.suffix == ".jsonl" else read_json(file)
    if not isinstance(records, list) or not records:
        raise UserError(f"{file} must hold a list of {what}")
    return records


def _questions(record: dict[str, Any], glimpse: Glimpse, key: str) -> list[Question]:
    """The questions of one record."""
    if "questions" in record:
        asked, given = list(record["questions"] or []), list(record.get("answers") or [])
        if len(asked) != len(given):
            raise UserError(f"{key}: {len(asked)} questions and {len(given)} answers")
        return [
            Question(key=key, text=text, answers=(str(answer),), glimpse=glimpse)
            for text, answer in zip(asked, given, strict=True)
        ]
    text = record.get("question")
    answers = record.get("answers", record.get("answer"))
    if not isinstance(text, str) or answers is None or answers == []:
        raise UserError(f"{key}: needs a question and an answer; it has {', '.join(record) or 'nothing'}")
    listed = answers if isinstance(answers, list) else [answers]
    # VQA's annotations are objects with the answer in them.
    accepted = [str(item.get("answer", "")) if isinstance(item, dict) else str(item) for item in listed]
    if choices := record.get("choices"):
        text += "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        accepted = [_letter(answer, choices, key) for answer in accepted]
    return [Question(key=key, text=text, answers=tuple(accepted), glimpse=glimpse)]


def _letter(answer: str, choices: Sequence[str], key: str) -> str:
    if answer in choices:
        return LETTERS[list(choices).index(answer)]
    if answer.isdigit() and int(answer) < len(choices):
        return LETTERS[int(answer)]
    if len(answer) == 1 and answer.upper() in LETTERS[: len(choices)]:
        return answer.upper()
    raise UserError(f"{key}: the answer {answer!r} is none of its {len(choices)} choices")
