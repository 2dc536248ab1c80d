"""Wrong command lines: one line each, and exit status 2."""

import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

from dove import cli
from dove.cli import COMMANDS, main


@pytest.mark.parametrize("name", ["-photo.png", "--output.png"])
def test_a_file_that_looks_like_a_flag(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    for command in (["encode", name, "--output", "tokens"], ["reconstruct", name], ["train", "--data", name]):
        assert main(command) == 2
        assert capsys.readouterr().err == f"dove: {name} is read as a flag; pass the file of that name as ./{name}\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("encode a.png --ouput x", "no flag --ouput; did you mean --output? (see dove encode --help)"),
        (
            "reconstruct a.png --num_token 3",
            "no flag --num_token; did you mean --num-tokens? (see dove reconstruct --help)",
        ),
        ("reconstruct a.png --tiles", "no flag --tiles; did you mean --tile? (see dove reconstruct --help)"),
        ("paper lst", "no command 'paper lst'; did you mean list? (see dove paper --help)"),
        (
            "evaluate nosuch",
            "no command 'evaluate nosuch'; there are "
            + ", ".join(n for n in COMMANDS if n.startswith("evaluate "))
            + " (see dove --help)",
        ),
        ("evaluate lenghts", "no command 'evaluate lenghts'; did you mean 'evaluate lengths'? (see dove --help)"),
        ("paper", "dove paper needs a command: list, run, train, evaluate, claims (see dove paper --help)"),
        ("train --prest dove-tiny", "no flag --prest; did you mean --preset?"),
        ("train --preset dove-tny", "no preset 'dove-tny'; did you mean dove-tiny?"),
        ("demo --xyzzy=1", "no flag --xyzzy (see dove demo --help)"),
        ("paper run table-1 --detail x", "no flag --detail; did you mean --data? (see dove paper --help)"),
        (
            "encode a.png",
            "Missing from dove encode: --output PATH Folder for the tokens. (required) (see dove encode --help)",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr().err == f"dove: {message}\n"


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line_without_a_place_in_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(_arguments: list[str]) -> int:
        warnings.warn("two\nlines", stacklevel=1)
        return 0

    shown = warnings.showwarning
    monkeypatch.setattr(cli, "dispatch", warn)
    assert main([]) == 0
    assert capsys.readouterr().err == "dove: two lines\n"
    assert warnings.showwarning is shown


PRESETS = {"train": ["--preset", "dove-tiny"], "vlm train": ["--preset", "vlm-tiny"]}
EVERY = [name for name in COMMANDS if name != "paper"] + [
    f"paper {n}" for n in "list run train evaluate claims".split()
]


@pytest.mark.parametrize("name", EVERY)
def test_every_command_names_the_flag_nearest_to_a_wrong_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*name.split(), *PRESETS.get(name, [])]
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    flag = max(re.findall(r"^\W*(--[a-z][\w.-]*\w)", capsys.readouterr().out, re.MULTILINE), key=len)
    assert main([*words, f"{flag[:-2]}{flag[-1]}", "x"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"did you mean {flag}?" in printed


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("demo --port", ["--port"]),
        ("demo --port many", ["--port", "many"]),
        ("demo --port 70000", ["--port 70000 is no port; pass 0 to 65535"]),
        ("demo stray", ["stray"]),
        ("train --preset dove-tiny --optim.lr much", ["--optim.lr", "much"]),
    ],
)
def test_a_wrong_value_is_one_line(command: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dove: ")
    assert printed.count("\n") == 1
    assert "│" not in printed
    assert "helptext" not in printed
    for part in parts:
        assert part in printed
