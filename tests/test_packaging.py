"""What holds of the package as a whole."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import dove

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["reconstruct", "--help"], ["train", "--help"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, dove.cli\n"
        "try:\n    dove.cli.main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "dove" in done.stdout


def test_versions_agree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == dove.__version__ == version("dove-encoder")


def test_every_pinned_package_is_what_runs() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for package in ("torch", "torchvision", "transformers", "diffusers", "tyro", "pyarrow"):
        assert version(package).split("+")[0] == pins[package]


def test_shipped_weights_stay_small() -> None:
    files = [path for path in (ROOT / "src/dove/weights").rglob("*.safetensors")]
    assert files
    assert sum(path.stat().st_size for path in files) < 45e6
    assert (ROOT / "src/dove/weights/dove-tiny/model.safetensors").stat().st_size <= 12e6
