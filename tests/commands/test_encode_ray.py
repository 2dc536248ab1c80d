"""dove encode --engine ray: the store is the one that a single process would have written."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dove.cli import main
from dove.store import TokenStore

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (extra: scale)")


def encode(photos: Path, output: Path, checkpoint: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which Ray may fill with threads and warnings as it likes."""
    arguments = [str(photos), "--output", str(output), "--model", checkpoint, "--shard-size", "2", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "dove", "encode", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)


@needs_ray
@pytest.mark.nightly
def test_a_cluster_writes_the_same_store(photos: Path, checkpoint: str, tmp_path: Path) -> None:
    (photos / "a" / "broken.png").write_bytes(b"no picture")
    one, many = tmp_path / "one", tmp_path / "many"
    common = ["--model", checkpoint, "--shard-size", "2"]
    assert main(["encode", str(photos), "--output", str(one), *common]) == 2
    done = encode(photos, many, checkpoint, "--engine", "ray")
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.strip().splitlines()[-1].startswith("dove: 1 of 8 images could not be read")
    (many / "tokens-00001.parquet").unlink()  # a run that stopped in between goes on
    assert encode(photos, many, checkpoint, "--engine", "ray").returncode == 2
    expected, found = ([*TokenStore.open(folder).shards()] for folder in (one, many))
    for old, new in zip(expected, found, strict=True):
        assert (old.keys, old.unreadable) == (new.keys, new.unreadable)
        for first, second in zip(old.values, new.values, strict=True):
            torch.testing.assert_close(first, second)


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_package_is_named(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["encode", str(photos), "--output", str(tmp_path / "x"), "--model", checkpoint, "--engine", "ray"]
    assert main(arguments) == 2
    assert "dove-encoder[scale]" in capsys.readouterr().err
