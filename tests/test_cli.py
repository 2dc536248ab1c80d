"""Names of files on the command line."""

from pathlib import Path

import pytest
from PIL import Image

from dove.cli import main


@pytest.mark.parametrize("name", ["-photo.png", "--output.png"])
def test_a_file_that_looks_like_a_flag(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    for command in (["encode", name, "--output", "tokens"], ["reconstruct", name], ["train", "--data", name]):
        assert main(command) == 2
        assert capsys.readouterr().err == f"dove: {name} is read as a flag; pass the file of that name as ./{name}\n"
