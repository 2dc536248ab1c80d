"""Conversations about images: LLaVA's JSON layout and parquet files with questions and answers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.parquet import ParquetImages
from dove.data.sources import FileImages
from dove.errors import UserError
from dove.vlm.images import Glimpse
from dove.vlm.llava import describe_missing, missing_images, read_chats
from dove.vlm.text import IMAGE, Turn, place_images


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns about some images.

    Attributes:
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
    left_out: str = ""  # One line about conversations whose images are missing, where they were to be skipped

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> list[str]:
        """All questions and answers, for a text tokenizer to learn from."""
        return [
            text
            for item in self.items
            for turn in item.turns
            for text in ([turn.system] if turn.system else [])
            + [turn.question.replace(IMAGE, "").strip(), turn.answer or ""]
        ]

    def answer_weights(self, balance: float) -> dict[str, float]:
        """The weight of each answer: its frequency to the power of ``-balance``."""
        counts = Counter(turn.answer or "" for item in self.items for turn in item.turns)
        return {answer: count**-balance for answer, count in counts.items()}

    def split(self, holdout: int) -> "tuple[Conversations, Conversations]":
        """All but the last ``holdout`` conversations, and those."""
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
    """At most so many of a conversation's independent questions."""
    if item.follows or most is None or len(item.turns) <= most:
        return item
    chances = np.array([weights[turn.answer or ""] for turn in item.turns])
    chosen = np.random.default_rng([seed, 1]).choice(len(chances), most, replace=False, p=chances / chances.sum())
    return replace(item, turns=tuple(item.turns[index] for index in chosen))


def open_conversations(source: str, images: str = "", on_missing: str = "refuse") -> Conversations:
    """Read a data set of either layout.

    Args:
        source: a .json or .jsonl file in the layout of LLaVA's instruction data (``id``, ``image``, and ``conversations`` of
            ``from`` and ``value`` or of ``role`` and ``content``), or parquet with the columns ``image``, ``questions`` and
            ``answers`` (or ``question`` and ``answer``).
        images: the folder that a JSON file's image paths start from; its own folder by default.
        on_missing: with ``skip`` conversations whose images are missing are left out, see ``Conversations.left_out``.

    Raises:
        UserError: naming the sample that does not do.
    """
    if not source:
        raise UserError("no conversations are given; pass --data with LLaVA's JSON layout or parquet with questions")
    if source.endswith((".json", ".jsonl")):
        return _read_chats(Path(source), Path(images) if images else Path(source).parent, on_missing)
    dataset = open_images(source)
    if not isinstance(dataset, ParquetImages):
        raise UserError(f"{source}: questions come from a .json or .jsonl file in LLaVA's layout or from parquet files")
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


def _read_chats(file: Path, folder: Path, on_missing: str) -> Conversations:
    records = read_chats(file)
    missing = missing_images((path for record in records for path in record.paths), folder)
    if missing and on_missing == "refuse":
        raise UserError(
            f"{file}: {describe_missing(missing, folder)}; pass the right folder with --images, or leave their "
            "conversations out with --on-missing skip"
        )
    kept = [record for record in records if not set(missing).intersection(record.paths)]
    if not kept:
        raise UserError(f"{file}: {describe_missing(missing, folder)}, which leaves no conversation")
    index_of: dict[str, int] = {}
    items = []
    for record in kept:
        glimpses = tuple(Glimpse(index=index_of.setdefault(path, len(index_of))) for path in record.paths)
        items.append(Conversation(key=record.key, turns=record.turns, glimpses=glimpses))
    told = (
        f"{len(records) - len(kept)} of {len(records)} conversations are left out: {describe_missing(missing, folder)}"
    )
    images = FileImages([str(folder / path) for path in index_of])
    return Conversations(images, tuple(items), left_out=told if missing else "")
