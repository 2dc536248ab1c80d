"""Everything at paper scale, end to end, on drawn images and an eighth of all widths."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dove.paper import load_experiments
from dove.paper.models import load_models

pytestmark = pytest.mark.faults


@pytest.mark.timeout(7200)
def test_every_plan_is_trained_resumed_measured_and_printed(tmp_path: Path, record: Callable[..., None]) -> None:
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "dove",
        "paper",
        "run",
        "--scale",
        "paper",
        "--rehearse",
        "--output",
        str(tmp_path),
    ]
    output, errors = tmp_path / "output.txt", tmp_path / "errors.txt"
    with output.open("w") as shown_to, errors.open("w") as told_to:
        done = subprocess.run(command, stdout=shown_to, stderr=told_to)
    folder, shown = tmp_path / "rehearsal", output.read_text()
    assert done.returncode == 0, shown[-2000:] + errors.read_text()[-4000:]
    commands = [line for line in shown.splitlines() if line.startswith("$ ")]
    for model in load_models().values():
        assert (model.folder(folder) / "config.json").is_file()
    trainings = sum(" train --preset " in line for line in commands)
    curves = [*folder.glob("*/metrics.jsonl"), *folder.glob("*/codes/metrics.jsonl")]
    assert trainings == 2 * len(curves)
    for curve in curves:  # half by one process, the rest by two
        steps = [json.loads(line)["step"] for line in curve.read_text().splitlines() if '"lr"' in line]
        assert steps == sorted(set(steps))
        assert len(steps) >= 2
    for experiment in load_experiments():
        _, heading, rest = shown.partition(
            f"{experiment.name}: {experiment.title}\n{experiment.source.removeprefix('the ')}: "
        )
        assert heading
        if experiment.paper_values:
            values = rest.partition(f"{experiment.source}'s values (")[2]
            assert experiment.paper_values.splitlines()[0] in values.splitlines()[1]
    rows = json.loads((folder / "table2" / "coco-val" / "reconstruction.json").read_text())["rows"]
    assert {row["model"] for row in rows} >= {"DOVE", "TiTok-L-32", "TiTok-B-64", "TiTok-S-128", "VQGAN", "ALIT"}
    assert {row["num_tokens"] for row in rows if row["model"] == "DOVE"} == {32, 64, 96, 128, 160, 192, 224, 256}
    record(seconds=round(time.monotonic() - began), commands=len(commands), trainings=trainings)
