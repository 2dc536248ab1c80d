"""What a machine can do, and completion in a shell."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dove.cli import COMMANDS, main
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


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "complete -o filenames -F _dove dove" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_and_groups() -> None:
    from dove.commands.completion import make_script

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"{make_script(COMMANDS)}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _dove; echo ${{COMPREPLY[@]}}"
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert complete("dove", "recon") == ["reconstruct"]
    assert "evaluate" in complete("dove", "")
    assert complete("dove", "evaluate", "leng") == ["lengths"]
