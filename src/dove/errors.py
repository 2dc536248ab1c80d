"""The one exception class for errors that a user can cause, and the text in it."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors for which more space helps."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""


def one_line(error: BaseException | str) -> str:
    """Return the text of any error or warning without line breaks, or the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def readable(name: str) -> str:
    r"""Write bytes of a name that are no UTF-8 as ``\xff``; every other name stays as it is."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of a surrogate pair, as JSON can hold them
        return name.encode("utf-8", "backslashreplace").decode()


def as_text(value: object, what: str = "") -> str:
    """Return a text that can be encoded, and raise ``UserError``, behind what it is, for anything else."""
    place = f"{what}: " if what else ""
    if not isinstance(value, str):
        raise UserError(f"{place}{value!r} is no text; pass words")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are no UTF-8, halves of a surrogate pair in JSON
        raise UserError(f"{place}{value!r} is no text in UTF-8; write it anew") from error
    return value


def require_text(value: object, what: str) -> str:
    """Return a text as :func:`as_text` does, and raise ``UserError`` for an empty one, too."""
    text = as_text(value, what)
    if not text.strip():
        raise UserError(f"{what} is empty; pass words")
    return text


@contextmanager
def writing(target: object) -> Iterator[None]:
    """Report in one line that a file or folder cannot be written, such as for lack of space or below a file."""
    try:
        yield
    except OSError as error:
        path = Path(str(target))
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        files = [part for part in (path, *path.parents) if part.is_file()] if in_the_way else []
        if files:
            raise UserError(f"cannot write {target}: {files[0]} is a file, not a folder; pass another path") from error
        remedy = "free some space or write elsewhere" if error.errno in FULL else "write elsewhere"
        raise UserError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give the path of a new file that takes the place of ``file`` at the end, and goes where that is not reached."""
    if file.is_dir():
        raise UserError(f"cannot write {file}: it is a folder; pass the name of a file")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".new-") as folder:
            scratch = Path(folder) / file.name
            yield scratch
            with scratch.open("rb") as written:
                os.fsync(written.fileno())
            scratch.replace(file)
