"""Records of instruction data in LLaVA's JSON layout, in the forms that it comes in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dove.data.json_files import parse_lines, read_json
from dove.errors import UserError
from dove.vlm.text import IMAGE, Turn, place_images

ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
MOST_NAMES = 3  # Missing images that a message names


@dataclass(frozen=True, kw_only=True)
class ChatRecord:
    """A conversation before its images are looked for.

    Attributes:
        paths: of its images, in the order of their marks.
        turns: questions and answers; the first has the system prompt, if there is one.
    """

    key: str
    paths: tuple[str, ...]
    turns: tuple[Turn, ...]


def read_chats(file: Path) -> list[ChatRecord]:
    """All records of a .json file (a list) or a .jsonl file (one on each line)."""
    records = read_json(file, parse_lines) if file.suffix == ".jsonl" else read_json(file)
    if not isinstance(records, list) or not records:
        raise UserError(f"{file} must hold a list of conversations; see LLaVA's instruction data")
    return [_read_record(record, f"{file} record {number}") for number, record in enumerate(records)]


def missing_images(paths: Iterable[str], folder: Path) -> list[str]:
    """Those of the paths, each once, that are no files below ``folder``."""
    return [path for path in dict.fromkeys(paths) if not (folder / path).is_file()]


def describe_missing(missing: Sequence[str], folder: Path) -> str:
    """Count the missing images and list the names of the first."""
    named = ", ".join(missing[:MOST_NAMES]) + (", ..." if len(missing) > MOST_NAMES else "")
    return f"{len(missing)} images are not in {folder}: {named}"


def _read_record(record: Any, place: str) -> ChatRecord:
    if not isinstance(record, dict):
        raise UserError(f"{place} is {type(record).__name__}; it must be an object with id, image and conversations")
    key = f"{place} (id {record['id']})" if "id" in record else place
    image = record.get("image") or record.get("images") or []
    paths = [image] if isinstance(image, str) else image
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UserError(f"{key}: image must be a path or a list of paths")
    said = record.get("conversations") or record.get("messages")
    if not isinstance(said, list) or not said:
        raise UserError(f"{key}: conversations must be a list of questions, each followed by its answer")
    messages = [_read_message(entry, f"{key}: entry {number} of conversations") for number, entry in enumerate(said)]
    system = messages.pop(0)[1] if messages[0][0] == "system" else ""
    if not messages or len(messages) % 2:
        raise UserError(f"{key}: conversations must be a list of questions, each followed by its answer")
    for number, (role, _) in enumerate(messages):
        if role != ("human", "gpt")[number % 2]:
            raise UserError(f"{key}: {role} speaks where {('human', 'gpt')[number % 2]} should; they take turns")
    texts = _place_marks([text for _, text in messages], len(paths), key)
    turns = [Turn(question=question, answer=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)]
    first = Turn(question=turns[0].question, answer=turns[0].answer, system=system)
    return ChatRecord(key=key, paths=tuple(paths), turns=(first, *turns[1:]))


def _read_message(entry: Any, place: str) -> tuple[str, str]:
    """Role and text of ``{from, value}`` or ``{role, content}``."""
    entry = entry if isinstance(entry, dict) else {}
    said, text = entry.get("from", entry.get("role")), entry.get("value", entry.get("content"))
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None or not isinstance(text, str):
        raise UserError(f"{place} must have from and value, or role and content; the roles are {', '.join(ROLES)}")
    return role, text


def _place_marks(texts: list[str], images: int, key: str) -> list[str]:
    """The texts with one ``<image>`` for each image; where there is none at all, they stand in front of the first question."""
    if any(IMAGE in answer for answer in texts[1::2]):
        raise UserError(f"{key}: an answer holds {IMAGE}; images stand in questions alone")
    marks = sum(question.count(IMAGE) for question in texts[::2])
    if not marks:
        return [place_images(texts[0], images, key), *texts[1:]]
    if marks != images:
        raise UserError(f"{key}: {marks} {IMAGE} and {images} images; write one {IMAGE} for each image")
    return texts
