"""Progress of trainings, read from the files in their output folders. Imports no torch."""

import json
from pathlib import Path
from typing import Any

import yaml

METRICS = "metrics.jsonl"
CHECKPOINTS, CHECKPOINT = "checkpoints", "step-"  # Folder of the checkpoints, and how their names begin
BUILT_ON = ("vqgan_checkpoint", "stage_one", "checkpoint")
"""Settings that name a model which a training starts from or learns from."""


def last_numbers(output: Path) -> dict[str, Any]:
    """Read the newest value of every number in a training's metrics; empty without any."""
    try:
        lines = (output / METRICS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for line in lines:
        if line.endswith("}"):  # a killed training leaves half a line
            found |= json.loads(line)
    return found


def saved_step(output: Path) -> int | None:
    """Read the step of a training's newest checkpoint; None without any."""
    steps = [int(path.name.removeprefix(CHECKPOINT)) for path in (output / CHECKPOINTS).glob(f"{CHECKPOINT}*")]
    return max(steps, default=None)


def images_seen(model: Path) -> int | None:
    """Images that a training has shown its model, and those that it builds on.

    Returns:
        Their number, repetitions included, as the model's card says or as its training's files do; None where one of these
        trainings cannot be found.
    """
    from dove.checkpoint import read_card, shipped_checkpoints

    if told := read_card(model).get("images_seen"):
        return int(told)
    settings = model.parent / "config.yaml"
    numbers = last_numbers(model.parent)
    if not settings.is_file() or "images" not in numbers:
        return None
    total = int(numbers["images"])
    config = yaml.safe_load(settings.read_text(encoding="utf-8"))
    for name in BUILT_ON:
        unused = name == "checkpoint" and config.get("start") != "checkpoint"
        if config.get(name) and not unused:
            more = images_seen(shipped_checkpoints().get(str(config[name]), Path(config[name])))
            if more is None:
                return None
            total += more
    return total
