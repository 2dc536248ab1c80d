"""Names of files and records as text that can be printed, stored and used as a name again."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

MOST_BYTES = 240  # Limit for one part of a path; file systems take 255, and suffixes and numbers are added
MOST_PATH_BYTES = 2000  # Limit for a path within an output folder; systems take 4096 for the whole path


def readable(name: str) -> str:
    r"""Write bytes of a name that are no UTF-8 as ``\xff``; every other name stays as it is."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of a surrogate pair, as JSON can hold them
        return name.encode("utf-8", "backslashreplace").decode()


def readable_keys(names: Sequence[str]) -> dict[str, str]:
    """Make distinct keys for those of the names that are no UTF-8."""
    texts = {name: text for name in names if (text := readable(name)) != name}
    taken = set(names) if texts else set()
    for name, text in texts.items():
        number = 2
        while texts[name] in taken:
            texts[name], number = f"{text}-{number}", number + 1
        taken.add(texts[name])
    return texts


def shorten(path: PurePosixPath) -> PurePosixPath:
    """Shorten a path to what file systems accept: parts that are too long are cut and end in a hash of the original."""
    parts = [_cut(part) for part in path.parts]
    if sum(len(part.encode()) + 1 for part in parts) > MOST_PATH_BYTES:
        parts = [f"{parts[-1][:40]}-{_hash(str(path))}"]
    return PurePosixPath(*parts)


def _cut(part: str) -> str:
    if len(part.encode()) <= MOST_BYTES:
        return part
    return part.encode()[: MOST_BYTES - 9].decode(errors="ignore") + "-" + _hash(part)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
