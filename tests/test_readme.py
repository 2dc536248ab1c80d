"""The README's Python and its `dove` commands run, and those of the page on lengths."""

import re
import shlex
from pathlib import Path

import pytest
from skimage import data_dir

from dove.cli import main
from dove.lengths import parse_length_policy

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LENGTHS = (Path(__file__).parents[1] / "docs" / "lengths.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for page in (README, LENGTHS)
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the photo and the folder of photos that the README speaks of."""
    from PIL import Image

    with Image.open(Path(data_dir) / "coffee.png") as photo:
        small = photo.convert("RGB").resize((90, 60))
    small.save(tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    small.save(tmp_path / "photos" / "coffee.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_has_snippets() -> None:
    assert len(SNIPPETS) == 1
    assert len(COMMANDS) >= 4


def test_python_snippet_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(SNIPPETS[0], "README.md", "exec"), {})
    assert "[1, 64, 256]" in capsys.readouterr().out
    assert (desk / "rebuilt.png").is_file()


def test_commands_run(desk: Path) -> None:
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "dove"
        assert main(arguments) == 0, command
    assert (desk / "rebuilt.json").is_file()
    assert len(list((desk / "decoded").rglob("*.png"))) == 1


def test_requests_of_the_page_on_lengths_are_understood() -> None:
    requests = [
        request.strip('"')
        for row in re.findall(r"^\| (`.*?) \|", LENGTHS, re.MULTILINE)
        for request in re.findall(r"`(.*?)`", row)
    ]
    assert len(requests) == 9
    for request in requests:
        assert str(parse_length_policy(request, 64)).replace("auto max", "max") == request
