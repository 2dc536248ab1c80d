"""Forked processes: their environment, their end, and that none goes on alone."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from dove.paper.launch import IMPORTED, run_forked


def note_environment(arguments: list[str]) -> int:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "NAMED")
    rank = os.environ.get("RANK", "alone")
    known = {name: os.environ.get(name) for name in names} | {"imported": all(name in sys.modules for name in IMPORTED)}
    (Path(arguments[0]) / f"{rank}.json").write_text(json.dumps(known))
    return 0


def fail_or_wait(arguments: list[str]) -> int:
    if os.environ["RANK"] == "1":
        return 3
    time.sleep(600)
    return 0


def test_forked_processes_find_what_a_launcher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, processes in enumerate((1, 2)):  # the second time by the server of the first, with another environment
        monkeypatch.setenv("NAMED", str(number))
        assert run_forked([str(tmp_path)], processes, note_environment) == 0
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(found) == {"alone", "0", "1"}
    assert found["alone"] == dict.fromkeys(found["alone"]) | {"NAMED": "0", "imported": True}
    assert found["0"]["MASTER_PORT"] == found["1"]["MASTER_PORT"]
    for rank in ("0", "1"):
        assert (found[rank]["RANK"], found[rank]["LOCAL_RANK"], found[rank]["WORLD_SIZE"]) == (rank, rank, "2")
        assert (found[rank]["NAMED"], found[rank]["imported"]) == ("1", True)


def test_when_one_of_them_fails_the_others_are_ended() -> None:
    began = time.monotonic()
    assert run_forked([], 2, fail_or_wait) == 3
    assert time.monotonic() - began < 100
