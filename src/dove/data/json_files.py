"""Reading of JSON files that users provide."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dove.errors import UserError


def read_json(path: str | Path, parse: Callable[[str], Any] = json.loads) -> Any:
    """Read a JSON file."""
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; thousands of brackets
        raise UserError(f"{path} is not JSON that can be read: {error}") from error


def parse_lines(text: str) -> list[Any]:
    """Parse one value from each line that is not empty, as ``.jsonl`` files have them."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
