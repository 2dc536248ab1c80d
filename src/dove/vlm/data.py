"""Conversations about images: LLaVA's JSON layout in its several forms, and parquet files with questions and answers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import numpy as np

from dove.data.dataset import ImageDataset
from dove.data.sources import FileImages
from dove.errors import UserError
from dove.vlm.images import Glimpse, missing_images
from dove.vlm.questions import Question, Questions, open_questions, read_records
from dove.vlm.text import IMAGE, Turn, place_images, without_marks

ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns about some images.

    Attributes:
        turns: questions with ``<image>`` where images stand, and answers; the first has the system prompt, if there is one.
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
            for text in (turn.system, without_marks(turn.question), turn.answer or "")
        ]

    @property
    def glimpses(self) -> list[Glimpse]:
        """All images in the order of the conversations."""
        return [glimpse for item in self.items for glimpse in item.glimpses]

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
            for turns in [item.turns] if item.follows else [(turn,) for turn in item.turns]:
                query = without_marks(turns[0].question) or None
                glimpses = tuple(replace(one, query=query) for one in item.glimpses)
                items.append(replace(item, turns=turns, glimpses=glimpses))
        return Conversations(self.images, tuple(items))

    def questions(self) -> Questions:
        """First turns, or all turns where they are independent, as questions with one accepted answer each."""
        items = []
        for item in self.items:
            for turn in item.turns[:1] if item.follows else item.turns:
                if len(item.glimpses) == 1:
                    text, answers = without_marks(turn.question), (turn.answer or "",)
                    items.append(Question(key=item.key, text=text, answers=answers, glimpse=item.glimpses[0]))
        return Questions(self.images, tuple(items))


def some_turns(item: Conversation, most: int | None, weights: Mapping[str, float], seed: int) -> tuple[Turn, ...]:
    """A conversation's turns; at most so many of them where they are independent questions."""
    if item.follows or most is None or len(item.turns) <= most:
        return item.turns
    chances = np.array([weights[turn.answer or ""] for turn in item.turns])
    chosen = np.random.default_rng([seed, 1]).choice(len(chances), most, replace=False, p=chances / chances.sum())
    return tuple(item.turns[index] for index in chosen)


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
        return _read_chats(Path(source), Path(images or Path(source).parent), on_missing)
    questions = open_questions(source)
    items = []
    for glimpse, group in groupby(questions.items, key=lambda question: question.glimpse):
        asked = list(group)
        turns = tuple(Turn(question=place_images([one.text], 1, one.key)[0], answer=one.answers[0]) for one in asked)
        items.append(Conversation(key=asked[0].key, turns=turns, glimpses=(glimpse,), follows=False))
    return Conversations(questions.images, tuple(items))


def _read_chats(file: Path, folder: Path, on_missing: str) -> Conversations:
    records = read_records(file, "conversations; see LLaVA's instruction data")
    index_of: dict[str, int] = {}
    items = [_read_record(record, f"{file} record {number}", index_of) for number, record in enumerate(records)]
    images = FileImages([str(folder / path) for path in index_of])
    missing, told = missing_images(index_of, folder)
    if not missing:
        return Conversations(images, tuple(items))
    if on_missing == "refuse":
        raise UserError(
            f"{file}: {told}; pass the right folder with --images, or leave their conversations out with --on-missing skip"
        )
    gone = {index_of[path] for path in missing}
    kept = tuple(item for item in items if gone.isdisjoint(glimpse.index for glimpse in item.glimpses))
    if not kept:
        raise UserError(f"{file}: {told}, which leaves no conversation")
    left_out = f"{len(items) - len(kept)} of {len(items)} conversations are left out: {told}"
    return Conversations(images, kept, left_out)


def _read_record(record: Any, place: str, index_of: dict[str, int]) -> Conversation:
    """One conversation; the paths of its images are given numbers in ``index_of``."""
    if not isinstance(record, dict):
        raise UserError(f"{place} is {type(record).__name__}; it must be an object with id, image and conversations")
    key = f"{place} (id {record['id']})" if "id" in record else place
    image = record.get("image") or record.get("images") or []
    paths = [image] if isinstance(image, str) else image
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UserError(f"{key}: image must be a path or a list of paths")
    said = record.get("conversations") or record.get("messages")
    entries = enumerate(said if isinstance(said, list) else [])
    messages = [_read_message(entry, f"{key}: entry {number} of conversations") for number, entry in entries]
    system = messages.pop(0)[1] if messages and messages[0][0] == "system" else ""
    if not messages or len(messages) % 2:
        raise UserError(f"{key}: conversations must be a list of questions, each followed by its answer")
    for (role, _), expected in zip(messages, cycle(("human", "gpt")), strict=False):
        if role != expected:
            raise UserError(f"{key}: {role} speaks where {expected} should; they take turns")
    answers = [text for _, text in messages[1::2]]
    if any(IMAGE in answer for answer in answers):
        raise UserError(f"{key}: an answer holds {IMAGE}; images stand in questions alone")
    questions = place_images([text for _, text in messages[::2]], len(paths), key)
    turns = [Turn(question=question, answer=answer) for question, answer in zip(questions, answers, strict=True)]
    turns[0] = replace(turns[0], system=system)
    glimpses = tuple(Glimpse(index=index_of.setdefault(path, len(index_of))) for path in paths)
    return Conversation(key=key, turns=tuple(turns), glimpses=glimpses)


def _read_message(entry: Any, place: str) -> tuple[str, str]:
    """Role and text of ``{from, value}`` or ``{role, content}``."""
    entry = entry if isinstance(entry, dict) else {}
    said, text = entry.get("from", entry.get("role")), entry.get("value", entry.get("content"))
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None or not isinstance(text, str):
        raise UserError(f"{place} must have from and value, or role and content; the roles are {', '.join(ROLES)}")
    return role, text
