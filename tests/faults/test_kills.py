"""Trainings and encodings that are really killed, with SIGKILL, at ten random moments."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import MODEL, paint, settings
from victims import Killer, command, seconds, train

from dove.store import TokenStore
from dove.tokenizer import Dove
from dove.training.state import checkpoints, load_state

pytestmark = pytest.mark.faults

KILLS = 10


def curve(output: str) -> list[dict[str, float]]:
    """What was logged, without how fast it went."""
    lines = [json.loads(line) for line in Path(output, "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.mark.timeout(900)
def test_a_training_killed_ten_times_has_the_curve_of_one_that_was_not(
    tmp_path: Path, record: Callable[..., None]
) -> None:
    data = paint(tmp_path / "photos", 24)
    whole = settings(data, tmp_path / "whole", steps=40)
    killed = replace(whole, output=str(tmp_path / "killed"))
    folder = Path(killed.output) / "checkpoints"

    def look() -> str:
        if any(folder.glob(".step-*")):
            return "while writing a checkpoint"
        return f"with {'a' if checkpoints(folder) else 'no'} checkpoint"

    def compare() -> None:
        assert curve(killed.output) == curve(whole.output)
        expected, found = (load_state(checkpoints(Path(c.output) / "checkpoints")[-1]) for c in (whole, killed))
        for part in ("model", "average"):
            assert all(torch.equal(found[part][name], tensor) for name, tensor in expected[part].items())

    killer = Killer(seed=0, look=look)
    once = replace(whole, output=str(tmp_path / "start"), run=replace(whole.run, steps=1))
    killer.run(train, once)  # the first start waits for the fork server
    start, all_steps = (
        seconds(lambda config=c: killer.run(train, config)) for c in (replace(once, output=once.output + "2"), whole)
    )
    killer.moments = (start / 2, start + 2 * max(all_steps - start, 0.0) / KILLS)
    while killer.survived < KILLS:
        if not killer.kill(train, killed):  # done before its moment: from the start again
            compare()
            shutil.rmtree(killed.output)
    assert killer.run(train, killed) == 0
    compare()
    record(kills=killer.survived, steps=whole.run.steps, killed=killer.seen)


@pytest.mark.timeout(900)
def test_a_corpus_whose_encoding_was_killed_ten_times_is_whole(tmp_path: Path, record: Callable[..., None]) -> None:
    photos, count = paint(tmp_path / "photos", 600), 600
    torch.manual_seed(0)
    Dove(MODEL).save_pretrained(tmp_path / "model")

    def arguments(output: Path) -> list[str]:
        common = ["--model", str(tmp_path / "model"), "--shard-size", "7", "--batch-size", "4"]
        return ["encode", str(photos), "--output", str(output), *common]

    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def look() -> str:
        done = len(list(killed.glob("tokens-*.parquet")))
        return "while writing a file" if any(killed.glob(".*.*")) else f"with {'no' if not done else 'some'} shards"

    def compare() -> None:
        expected, found = ([*TokenStore.open(folder).shards()] for folder in (whole, killed))
        assert [key for shard in found for key in shard.keys] == [f"{number:04}.png" for number in range(count)]
        for old, new in zip(expected, found, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(old.values, new.values, strict=True))
        assert not [path for path in killed.iterdir() if path.name.startswith(".")]

    killer = Killer(seed=1, look=look)
    killer.run(command, *arguments(tmp_path / "start"), "--limit", "1")
    start = seconds(lambda: killer.run(command, *arguments(tmp_path / "start2"), "--limit", "1"))
    all_images = seconds(lambda: killer.run(command, *arguments(whole)))
    killer.moments = (start / 2, start + 2 * max(all_images - start, 0.0) / KILLS)
    while killer.survived < KILLS:
        if not killer.kill(command, *arguments(killed)):
            compare()
            shutil.rmtree(killed)
    assert killer.run(command, *arguments(killed)) == 0
    compare()
    keys = [key for shard in TokenStore.open(killed).shards() for key in shard.keys]
    record(kills=killer.survived, records=len(keys), different=len(set(keys)), killed=killer.seen)
