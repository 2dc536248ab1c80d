"""Weights cut up between processes: the same training as with all of them everywhere, and the same checkpoints."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from accelerate import Accelerator
from small import settings
from torch import Tensor

from dove.errors import UserError
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove
from dove.training.config import DoveTrainConfig, VQGANTrainConfig
from dove.training.layout import Replicated, make_layout
from dove.training.objectives import VQGANObjective
from dove.training.setup import run_training
from dove.training.state import load_state

TWO_PROCESSES = Path(__file__).parent / "two_processes.py"


@dataclass(frozen=True)
class Runs:
    """Outputs of trainings by two processes.

    Attributes:
        config: of all of them, for three steps.
        whole: everything on every process.
        cut: weights, gradients, moving average and moments cut up; stopped after two steps and resumed.
        crossed: cut up from the first step of ``whole`` on, with an undefined gradient on one process in the last step.
    """

    config: DoveTrainConfig
    whole: Path
    cut: Path
    crossed: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Runs:
    folder = tmp_path_factory.mktemp("layout")
    config = settings(photos, folder / "one", 3)
    small = replace(config.loss.discriminator, width=8, layers=1)
    config = replace(
        config,
        loss=replace(config.loss, gan=0.1, discriminator=small),
        run=replace(config.run, batch_size=2, accumulate=2, sample_every=3, checkpoint_every=1, keep_checkpoints=3),
    )
    outputs = {name: folder / name for name in ("whole", "cut", "crossed")}
    common, fsdp = {"config": write(config, folder / "config.yaml")}, {"sharding": "fsdp"}
    jobs: list[dict[str, Any]] = [
        {**common, "output": outputs["whole"]},
        {**common, "output": outputs["cut"], "set": fsdp, "die_at": 2},
        {**common, "output": outputs["cut"], "set": fsdp},
        {
            **common,
            "output": outputs["crossed"],
            "set": {**fsdp, "non_finite": "skip"},
            "start": outputs["whole"] / "checkpoints" / "step-00000001",
            "spoil": 2,
        },
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str), encoding="utf-8")
    run_by_two(folder / "jobs.json")
    return Runs(config, **outputs)


def write(config: DoveTrainConfig, file: Path) -> Path:
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))), encoding="utf-8")
    return file


def run_by_two(jobs: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-W", "error:FSDP2", str(TWO_PROCESSES), str(jobs), port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]


def state(output: Path, step: int = 3) -> dict[str, Any]:
    return load_state(output / "checkpoints" / f"step-{step:08d}")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, f"{name}.{key}")
    else:
        yield name, value


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same entries of the same types and shapes, with nearly the same numbers: AdamW moves each by up to 3e-4 a step."""
    for (name, one), (other_name, other) in zip(leaves(found), leaves(expected), strict=True):
        assert name == other_name
        assert type(one) is type(other), name
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)
        else:
            assert one == (pytest.approx(other, rel=1e-4) if isinstance(one, float) else other), name


def curve(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.mark.slow
def test_a_cut_up_training_is_the_same_training_and_resumes_as_such(runs: Runs) -> None:
    assert_same(state(runs.cut, 2), state(runs.whole, 2))
    assert_same(state(runs.cut), state(runs.whole))
    found, expected = curve(runs.cut), curve(runs.whole)
    assert {"rec", "discriminator", "psnr/auto"} <= {name for line in expected for name in line}
    assert found == [pytest.approx(line, rel=1e-3, abs=2e-6) for line in expected]
    assert (runs.cut / "samples" / "step-00000003.png").is_file()


@pytest.mark.slow
def test_each_process_holds_half(runs: Runs) -> None:
    cut, whole = (
        [json.loads((output / f"holds-{rank}.json").read_text()) for rank in (0, 1)]
        for output in (runs.cut, runs.whole)
    )
    assert set(cut[0]) == {"weights", "gradients", "average", "moments"}
    for name, everything in whole[0].items():
        assert whole[1][name] == everything > 10_000
        assert cut[0][name] + cut[1][name] == everything
        assert cut[0][name] == pytest.approx(everything / 2, rel=0.01)


@pytest.mark.slow
def test_the_model_of_a_cut_up_training_is_the_moving_average(runs: Runs) -> None:
    average = state(runs.cut)["average"]
    for name, tensor in Dove.from_pretrained(runs.cut / "model").state_dict().items():
        assert torch.equal(tensor, average[f"module.{name}"]), name


@pytest.mark.slow
def test_one_process_goes_on_from_a_cut_up_checkpoint(runs: Runs) -> None:
    shutil.copytree(
        runs.cut / "checkpoints" / "step-00000002", Path(runs.config.output, "checkpoints", "step-00000002")
    )
    run_training(replace(runs.config, run=replace(runs.config.run, batch_size=4)))
    found, expected = state(Path(runs.config.output)), state(runs.whole)
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(found["model"][name], tensor, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_a_cut_up_training_goes_on_from_a_whole_checkpoint(runs: Runs) -> None:
    assert_same(state(runs.crossed, 2), state(runs.whole, 2))


@pytest.mark.slow
def test_what_is_not_finite_on_one_process_moves_no_share(runs: Runs) -> None:
    before, after = state(runs.crossed, 2), state(runs.crossed)
    assert after["step"] == 3
    assert all(torch.equal(tensor, after["model"][name]) for name, tensor in before["model"].items())
    assert all(tensor.isfinite().all() for name, tensor in leaves(after) if isinstance(tensor, Tensor))
    named = [json.loads(file.read_text()) for file in sorted((runs.crossed / "non-finite").iterdir())]
    assert [(file["step"], file["rank"], len(file["batch"])) for file in named] == [(2, 0, 4), (2, 1, 4)]
    assert all(file["values"]["gradient"] == "nan" for file in named)


def test_what_cannot_be_cut_up_is_refused(tiny_training: DoveTrainConfig, vqgan_training: VQGANTrainConfig) -> None:
    config = replace(tiny_training, run=replace(tiny_training.run, sharding="fsdp"))
    with pytest.raises(UserError, match="there is one; start several with torchrun"):
        run_training(config)
    codebook = VQGANObjective(vqgan_training, VQGAN(vqgan_training.model))
    two = Mock(spec=Accelerator, num_processes=2)
    with pytest.raises(UserError, match="pass --loss.restart-after 0"):
        make_layout(config, codebook, two)
    assert type(make_layout(tiny_training, codebook, two)) is Replicated
