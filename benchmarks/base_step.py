"""One forward and one optimizer step of ``dove-base`` at the paper's full size: seconds and peak memory.

    python benchmarks/base_step.py [--batch-size 1] [--json FILE]

Weights are random and the perceptual network and the discriminator are left out, because the question is whether the
tokenizer itself trains on the machine at hand.
"""

import argparse
import json
import platform
import resource
import time
from dataclasses import replace
from pathlib import Path

import torch

from dove.models.attention import use_attention_for
from dove.presets import DOVE_BASE
from dove.tokenizer import Dove
from dove.training.objectives import DoveObjective
from dove.training.trainer import make_optimizer


def measure(batch_size: int) -> dict[str, object]:
    """Seconds of each part of a step, and the process's peak memory in GiB."""
    loss = replace(DOVE_BASE.loss, perceptual=0.0, perceptual_network="none", gan=0.0)
    config = replace(DOVE_BASE, loss=loss)
    torch.manual_seed(0)
    objective = DoveObjective(config, Dove(config.model))
    use_attention_for(objective.model, torch.device("cpu"), training=True)
    optimizer = make_optimizer(config, objective.model, 1e-4)
    images = torch.rand(batch_size, 3, 256, 256) * 2 - 1
    seconds = {}
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        result = objective(images, 0)
    seconds["forward"] = time.perf_counter() - started
    started = time.perf_counter()
    result.loss.backward()
    seconds["backward"] = time.perf_counter() - started
    started = time.perf_counter()
    optimizer.step()
    seconds["optimizer"] = time.perf_counter() - started
    return {
        "parameters": sum(parameter.numel() for parameter in objective.model.parameters()),
        "batch_size": batch_size,
        "precision": "bf16 autocast",
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        "loss": round(float(result.loss.detach()), 4),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.batch_size), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
