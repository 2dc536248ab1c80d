"""Parsing of flags by tyro, with one line in place of its box where a command line is wrong."""

import difflib
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import groupby
from typing import Any

import tyro

from dove.errors import UserError

RULE = re.compile(r"[─-]{5,}")  # Rule between the texts of the box that tyro draws, which is of ASCII on some terminals


def parse_flags(options: Any, *, prog: str, arguments: Sequence[str], **settings: Any) -> Any:
    """Parse a command line into a dataclass, or one of a union of them.

    Raises:
        UserError: for an unknown flag, with the nearest one there is; for a missing or wrong value.
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(options, prog=prog, args=list(arguments), **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
    text = _help_text(options, prog, arguments, settings)
    message = _unknown_command(prog, arguments, text) or _unknown_flag(arguments, text)
    raise UserError(f"{message or _first_message(box.getvalue())} (see {prog} --help)")


def nearest(word: str, known: Iterable[str]) -> str:
    """Ask for the known word that is nearest to a wrong one, as in "; did you mean --output?"; empty where none is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def require_least(flag: str, value: int | None, least: int = 1) -> None:
    """Refuse a number that is too small; None stands for a flag that was not given."""
    if value is not None and value < least:
        raise UserError(f"{flag} {value} must be at least {least}")


def parse_pairs(entries: Sequence[str], flag: str, form: str) -> dict[str, str]:
    """Split the entries of a flag at their first "=".

    Raises:
        UserError: for an entry that is not of this form, and for a left side that is given twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        left, _, right = entry.partition("=")
        if not (left and right):
            raise UserError(f"{flag} {entry!r} is not understood; pass {form}")
        if left in pairs:
            raise UserError(f"{flag} has {left!r} twice; pass it once")
        pairs[left] = right
    return pairs


def _help_text(options: Any, prog: str, arguments: Sequence[str], settings: dict[str, Any]) -> str:
    """Get the help text, behind that of a subcommand where the first argument names one."""
    text = io.StringIO()
    subcommand = [argument for argument in arguments[:1] if not argument.startswith("-")]
    for words in (subcommand, []):
        with redirect_stdout(text), redirect_stderr(io.StringIO()), suppress(SystemExit):
            tyro.cli(options, prog=prog, args=[*words, "--help"], **settings)
    return text.getvalue()


def _unknown_command(prog: str, arguments: Sequence[str], text: str) -> str | None:
    listed = re.search(rf"^usage: {prog} \[-h\] {{([\w,-]+)}}", text, re.MULTILINE)
    names = listed[1].split(",") if listed else []
    if not names or (arguments and (arguments[0] in names or arguments[0].startswith("-"))):
        return None
    if not arguments:
        return f"{prog} needs a command: {', '.join(names)}"
    return f"no command '{prog.removeprefix('dove ')} {arguments[0]}'{nearest(arguments[0], names)}"


def _unknown_flag(arguments: Sequence[str], text: str) -> str | None:
    known = sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)))
    given = (argument.split("=")[0] for argument in arguments if re.match(r"--\w", argument))
    unknown = next((flag for flag in given if flag.replace("_", "-") not in known), None)
    return None if unknown is None else f"no flag {unknown}{nearest(unknown, known)}"


def _first_message(box: str) -> str:
    """Give the first text below the title of the box, in one line."""
    title, *lines = (line.strip("│|╰╯+ ") for line in box.splitlines() or [""])
    blocks = groupby(lines, lambda line: bool(RULE.match(line)))
    message = next((" ".join(block) for is_rule, block in blocks if not is_rule), title)
    return re.sub(r"^Error parsing \w*Options: ", "", message).replace("Expected 1 values.", "It takes one.")
