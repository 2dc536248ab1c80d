"""Full disks, damaged shards and lost processes: one line that says so, and nothing broken on disk."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import MODEL, paint, settings
from victims import command, fork_server, limited

from dove.data.augment import TrainingImages
from dove.errors import UserError
from dove.store import TokenStore
from dove.tokenizer import Dove
from dove.training.setup import run_training
from dove.training.state import checkpoints, load_state

pytestmark = pytest.mark.faults


def parquet(folder: Path, files: int, rows: int) -> Path:
    """Files of one row group each."""
    folder.mkdir()
    pictures = sorted(paint(folder.parent / "pictures", files * rows).iterdir())
    for number in range(files):
        cells = [
            {"bytes": path.read_bytes(), "path": path.name} for path in pictures[number * rows : (number + 1) * rows]
        ]
        pq.write_table(pa.table({"image": cells}), folder / f"{number}.parquet")
    return folder


def damage(path: Path) -> None:
    """Zeros over the pages; the footer stays, so that the file opens."""
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes(len(content) // 2) + content[8 + len(content) // 2 :])


def last(output: str) -> int:
    """Step of the newest checkpoint, which must be whole."""
    return int(load_state(checkpoints(Path(output) / "checkpoints")[-1])["step"])


def test_a_shard_damaged_in_the_middle_of_an_epoch_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = parquet(tmp_path / "data", files=4, rows=12)
    config = settings(data, tmp_path / "run", steps=24)  # two epochs
    calls, original = [], TrainingImages.__getitem__

    def spoiling(self: TrainingImages, sample: tuple[int, int]) -> object:
        calls.append(sample)
        if len(calls) == 20:
            damage(data / "2.parquet")
            self.dataset.dataset._cache.clear()  # type: ignore[attr-defined]  # as if memory had no room for it
        return original(self, sample)

    monkeypatch.setattr(TrainingImages, "__getitem__", spoiling)
    run_training(config)
    assert last(config.output) == 24
    assert "2.parquet: damaged parquet file" in caplog.text


def test_nothing_but_damaged_shards_stops_the_training(tmp_path: Path) -> None:
    data = parquet(tmp_path / "data", files=2, rows=8)
    config = settings(data, tmp_path / "run", steps=4)
    run_training(config)
    for path in data.iterdir():
        damage(path)
    with pytest.raises(UserError, match=r"unreadable images in a row.*damaged parquet"):
        run_training(replace(config, run=replace(config.run, steps=40, holdout=0)))
    assert last(config.output) == 4


def run_limited(limit: int, log: Path, *arguments: str) -> tuple[int, str]:
    process = fork_server().Process(target=limited, args=(limit, str(log), *arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, log.read_text().strip().splitlines()[-1]


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    data = paint(tmp_path / "photos", 24)
    config = settings(data, tmp_path / "run", steps=4)
    run_training(config)
    size = (checkpoints(Path(config.output) / "checkpoints")[-1] / "state.pt").stat().st_size
    arguments = ["train", "--config", str(Path(config.output) / "config.yaml"), "--run.steps", "12"]
    status, line = run_limited(size - 1000, tmp_path / "log", *arguments)
    assert status == 2
    assert line.startswith("dove: cannot write the checkpoint of step 6")
    assert last(config.output) == 4
    left = sorted(path.name for path in (Path(config.output) / "checkpoints").iterdir())
    assert left == ["step-00000002", "step-00000004"]
    run_training(replace(config, run=replace(config.run, steps=12)))
    assert last(config.output) == 12


def test_a_disk_that_fills_up_keeps_the_shards(tmp_path: Path) -> None:
    photos = paint(tmp_path / "photos", 30)
    Dove(MODEL).save_pretrained(tmp_path / "model")
    output = tmp_path / "tokens"
    arguments = [
        "encode",
        str(photos),
        "--output",
        str(output),
        "--model",
        str(tmp_path / "model"),
        "--shard-size",
        "10",
    ]
    status, line = run_limited(2000, tmp_path / "log", *arguments)
    assert status == 2
    assert "cannot write" in line
    assert sorted(path.name for path in output.iterdir()) == ["store.json"]
    process = fork_server().Process(target=command, args=tuple(arguments))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert sum(len(shard.keys) for shard in TokenStore.open(output).shards()) == 30


def test_a_lost_loader_process_stops_with_whole_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = paint(tmp_path / "photos", 24)
    config = settings(data, tmp_path / "run", steps=20)
    config = replace(config, run=replace(config.run, workers=2))
    parent, original = os.getpid(), TrainingImages.__getitem__

    def dying(self: TrainingImages, sample: tuple[int, int]) -> object:
        if sample[0] == 2 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingImages, "__getitem__", dying)
        with pytest.raises(UserError, match="a loader process was lost"):
            run_training(config)
    assert 0 < last(config.output) < 20
    run_training(config)
    assert last(config.output) == 20
