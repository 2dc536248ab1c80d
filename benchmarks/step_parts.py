"""Seconds of a training step of dove-tiny, and what its parts take: each is left out in turn, and the difference counts.

    python benchmarks/step_parts.py --json FILE

Weights are random, those of SqueezeNet too, and images are noise; loading and augmenting them is not in it. Steps alternate in
one process, so that a slow minute of the machine affects them all alike; medians over rounds.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from output import write_report
from speed import surroundings
from training_step import make_step, random_squeezenet

from dove.evaluation.speed import stopwatch
from dove.training.presets import PRESETS

CPU = torch.device("cpu")
WITHOUT: dict[str, dict[str, Any]] = {
    "whole step": {},
    "without SqueezeNet's distance": {"perceptual_network": "efficientnet-lite0"},
    "without EfficientNet-Lite0's distance": {"perceptual_network": "squeezenet"},
    "without alignment": {"align": replace(PRESETS["dove-tiny"].loss.align, network="none")},  # type: ignore[union-attr]
}


def measure(caps: list[int], batch_size: int, repetitions: int) -> dict[str, Any]:
    """Time every part at every greatest number of tokens."""
    preset: Any = PRESETS["dove-tiny"]
    images = torch.rand(batch_size, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    steps = {}
    for cap in caps:
        for name, change in WITHOUT.items():
            network = change.get("perceptual_network", preset.loss.perceptual_network)
            loss = replace(preset.loss, caps=(cap,), cap_shares=(1.0,), **change)
            model = replace(preset.model, quality_perceptual=network)
            steps[name, cap] = make_step(replace(preset, model=model, loss=loss), "ours", images)
    for step in steps.values():
        step.run()
    for _ in range(repetitions):
        for step in steps.values():
            step.seconds.append(stopwatch(step.run, CPU))
    rows = [
        {"part": name, "at_most": cap, "seconds": round(statistics.median(step.seconds), 4)}
        for (name, cap), step in steps.items()
    ]
    return {"batch_size": batch_size, "repetitions": repetitions, "rows": rows, **surroundings()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--caps", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with random_squeezenet():
        report = measure(options.caps, options.batch_size, options.repetitions)
    write_report(report, options.json)


if __name__ == "__main__":
    main()
