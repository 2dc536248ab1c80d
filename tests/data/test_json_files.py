"""JSON of users: what is wrong is said in one line."""

from pathlib import Path

import pytest

from dove.data.json_files import parse_lines, read_json
from dove.errors import UserError


def test_values_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1, "ü"]', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n[2]\n', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == [1, "ü"]
    assert read_json(tmp_path / "a.jsonl", parse_lines) == [{"a": 1}, [2]]


@pytest.mark.parametrize(
    "content", [b"[1,", b'"\xff"', b"[" * 100_000, b"1" * 5000], ids=["cut", "utf-8", "deep", "long"]
)
def test_damage_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="is not JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*nowhere.json: No such file"):
        read_json(tmp_path / "nowhere.json")
