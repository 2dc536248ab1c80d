"""Conversations about images: LLaVA's JSON layout and parquet files with questions and answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.json_files import read_json
from dove.data.parquet import ParquetImages
from dove.data.sources import FileImages
from dove.errors import UserError
from dove.vlm.images import Glimpse
from dove.vlm.text import IMAGE, Turn, place_images

ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns about some images.

    Attributes:
        key: names the sample in messages.
        turns: questions with ``<image>`` where images stand, and answers.
        glimpses: the images in the order of their marks.
        follows: whether a turn knows the turns before it; else each question stands alone with the images.
    """

    key: str
    turns: tuple[Turn, ...]
    glimpses: tuple[Glimpse, ...]
    follows: bool = True


@dataclass(frozen=True, eq=False)
class Conversations:
    """Conversations and the source of their images."""

    images: ImageDataset
    items: tuple[Conversation, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> list[str]:
        """All questions and answers, for a text tokenizer to learn from."""
        return [
            text
            for item in self.items
            for turn in item.turns
            for text in (turn.question.replace(IMAGE, "").strip(), turn.answer or "")
        ]

    def answer_weights(self, balance: float) -> dict[str, float]:
        """The weight of each answer: its frequency to the power of ``-balance``."""
        counts = Counter(turn.answer or "" for item in self.items for turn in item.turns)
        return {answer: count**-balance for answer, count in counts.items()}

    def split(self, holdout: int) -> "tuple[Conversations, Conversations]":
        """All but the last ``holdout`` conversations, and those.

        Raises:
            UserError: if nothing is left.
        """
        if not 0 <= holdout < len(self):
            raise UserError(f"run.holdout={holdout} leaves nothing of {len(self)} conversations; lower it")
        cut = len(self) - holdout
        return Conversations(self.images, self.items[:cut]), Conversations(self.images, self.items[cut:])

    def by_question(self) -> "Conversations":
        """Each question about images that is independent of the others as its own query and its own conversation."""
        items = []
        for item in self.items:
            parts = [replace(item, turns=(turn,)) for turn in item.turns] if not item.follows else [item]
            for part in parts:
                query = part.turns[0].question.replace(IMAGE, "").strip()
                items.append(replace(part, glimpses=tuple(replace(one, query=query) for one in part.glimpses)))
        return Conversations(self.images, tuple(items))


def some_questions(item: Conversation, most: int | None, weights: Mapping[str, float], seed: int) -> Conversation:
    """At most so many of a conversation's independent questions.

    Args:
        item: the conversation; one whose turns follow each other stays whole.
        most: how many to keep; None for all.
        weights: each answer's, in proportion to which its questions are drawn.
        seed: of the draw.
    """
    if item.follows or most is None or len(item.turns) <= most:
        return item
    chances = np.array([weights[turn.answer or ""] for turn in item.turns])
    chosen = np.random.default_rng([seed, 1]).choice(len(chances), most, replace=False, p=chances / chances.sum())
    return replace(item, turns=tuple(item.turns[index] for index in chosen))


def open_conversations(source: str, images: str = "") -> Conversations:
    """Read a data set of either layout.

    Args:
        source: a JSON file in the layout of LLaVA's instruction data (``id``, ``image``, ``conversations``), or parquet
            with the columns ``image``, ``questions`` and ``answers`` (or ``question`` and ``answer``).
        images: the folder that a JSON file's image paths start from; its own folder by default.

    Raises:
        UserError: naming the sample that does not do.
    """
    if not source:
        raise UserError("no conversations are given; pass --data with LLaVA's JSON layout or parquet with questions")
    if source.endswith(".json"):
        return _read_json(Path(source), Path(images) if images else Path(source).parent)
    dataset = open_images(source)
    if not isinstance(dataset, ParquetImages):
        raise UserError(f"{source}: questions come from a .json file in LLaVA's layout or from parquet files")
    return _read_parquet(dataset, source)


def _read_parquet(dataset: ImageDataset, source: str) -> Conversations:
    items = []
    for index in range(len(dataset)):
        raw = dataset.raw(index)
        questions, answers = (_listed(raw.metadata, name, source, raw.name) for name in ("question", "answer"))
        if len(questions) != len(answers):
            raise UserError(f"{raw.name}: {len(questions)} questions and {len(answers)} answers")
        if not questions:
            continue
        turns = tuple(
            Turn(question=place_images(question, 1, raw.name), answer=answer)
            for question, answer in zip(questions, answers, strict=True)
        )
        items.append(Conversation(key=raw.name, turns=turns, glimpses=(Glimpse(index=index),), follows=False))
    if not items:
        raise UserError(f"{source}: holds no question")
    return Conversations(dataset, tuple(items))


def _listed(metadata: dict[str, Any], name: str, source: str, key: str) -> list[str]:
    """A column of lists, or one of single values as lists of one."""
    if f"{name}s" in metadata:
        return list(metadata[f"{name}s"] or [])
    if name in metadata:
        return [metadata[name]]
    raise UserError(f"{source}: has no column {name}s or {name}; {key} has {', '.join(metadata) or 'no other column'}")


def _read_json(file: Path, folder: Path) -> Conversations:
    records = read_json(file)
    if not isinstance(records, list) or not records:
        raise UserError(f"{file} must hold a list of conversations; see LLaVA's instruction data")
    index_of: dict[str, int] = {}
    items = []
    for number, record in enumerate(records):
        key, paths, turns = _read_record(record, f"{file} record {number}")
        for path in paths:
            if path not in index_of and not (folder / path).is_file():
                raise UserError(f"{key}: there is no image {folder / path}; pass the right folder with --images")
        glimpses = tuple(Glimpse(index=index_of.setdefault(path, len(index_of))) for path in paths)
        items.append(Conversation(key=key, turns=turns, glimpses=glimpses))
    return Conversations(FileImages([str(folder / path) for path in index_of]), tuple(items))


def _read_record(record: Any, place: str) -> tuple[str, list[str], tuple[Turn, ...]]:
    """Name, image paths and turns of a record.

    Raises:
        UserError: naming it, for whatever is missing or does not fit together.
    """
    if not isinstance(record, dict):
        raise UserError(f"{place} is {type(record).__name__}; it must be an object with id, image and conversations")
    key = f"{place} (id {record['id']})" if "id" in record else place
    image = record.get("image") or []
    paths = [image] if isinstance(image, str) else image
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UserError(f"{key}: image must be a path or a list of paths")
    said = record.get("conversations")
    if not isinstance(said, list) or not said or len(said) % 2:
        raise UserError(f"{key}: conversations must be a list of questions, each followed by its answer")
    texts = []
    for place_in, entry in enumerate(said):
        role = ROLES.get(entry.get("from", "")) if isinstance(entry, dict) else None
        if role != ("human", "gpt")[place_in % 2] or not isinstance(entry.get("value"), str):
            raise UserError(f"{key}: entry {place_in} of conversations must have from (human, then gpt) and a value")
        texts.append(entry["value"])
    _check_marks(texts, len(paths), key)
    pairs: Sequence[tuple[str, str]] = list(zip(texts[::2], texts[1::2], strict=True))
    return key, paths, tuple(Turn(question=question, answer=answer) for question, answer in pairs)


def _check_marks(texts: Sequence[str], images: int, key: str) -> None:
    if any(IMAGE in answer for answer in texts[1::2]):
        raise UserError(f"{key}: an answer holds {IMAGE}; images stand in questions alone")
    marks = sum(question.count(IMAGE) for question in texts[::2])
    if images and not marks:
        raise UserError(f"{key}: has an image and no {IMAGE} in its questions; write {IMAGE} where it stands")
    if marks != images:
        raise UserError(f"{key}: {marks} {IMAGE} and {images} images; write one {IMAGE} for each image")
