"""Progress in logs: lines now and then, none for what is soon done."""

import re
import time

import pytest

from dove.data import progress_bar
from dove.data.progress_bar import ProgressBar


def test_short_work_leaves_a_log_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(ProgressBar(range(5), "counted")) == [0, 1, 2, 3, 4]
    with ProgressBar(total=3, desc="counted", leave=True) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_long_work_writes_a_line_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "INTERVAL", 0.05)
    with ProgressBar(total=20, desc="training", unit="step", leave=True) as bar:
        for _ in range(20):
            time.sleep(0.01)
            bar.update()
            bar.set_postfix({"rec": 0.5}, refresh=False)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    for line in lines:
        assert re.fullmatch(r"training: \d+ of 20, .*step.*, 00:00 gone, 00:00 left(, rec=0.5)?", line)
    assert lines[-1].startswith("training: 20 of 20")


def test_a_terminal_has_a_bar_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(ProgressBar(range(5), "counted"))
    shown = capsys.readouterr().err
    assert "counted: 100%" in shown or "counted:   0%" in shown
    assert shown.split("\r")[-1].strip() == ""
