"""What a machine can do."""

import json
from pathlib import Path

import pytest

from dove.cli import main
from dove.commands import doctor


def test_the_doctor_finds_the_shipped_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--offline", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["dove-tiny"]["ok"] is True
    assert found["hub"]["ok"] is None
    assert found["cpu"]["ok"] is True


def test_damaged_weights_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("dove.checkpoint.shipped_checkpoints", lambda: {str(tmp_path): tmp_path})
    assert main(["doctor", "--offline"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"made-up": ("no-such-package",)})
    assert doctor.extras() == [
        doctor.Finding("extra made-up", None, "missing no-such-package: pip install 'dove-encoder[made-up]'")
    ]
