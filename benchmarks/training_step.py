"""Images a second of a training step: as ``dove train`` does it, and as one would write it first.

    python benchmarks/training_step.py --json FILE                                      # dove-tiny, 16 images
    python benchmarks/training_step.py --preset dove-base --batch-size 1
    python benchmarks/training_step.py --variants ours compiled

A step is forward, loss, backward, the clipping of gradients and the update. Weights are random, those of the perceptual network
too. Variants alternate in one process; a round has one step of each, ratios are medians over rounds of the quotients
within a round. Where the loss has LPIPS or a discriminator, both are left out.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from output import write_report
from safetensors.torch import save_file
from speed import bf16_peak, median_quotient, memory_of, surroundings
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import squeezenet1_0

from dove.evaluation.speed import stopwatch
from dove.frozen.squeezenet import SQUEEZENET_VARIABLE
from dove.models import transformer
from dove.tokenizer import Dove
from dove.training.config import DoveTrainConfig, PrefixTrainConfig
from dove.training.objectives import DoveObjective, PrefixObjective, Step
from dove.training.presets import PRESETS
from dove.training.trainer import make_adamw

VARIANTS = {
    "plain fp32": "everything in fp32, the perceptual network as it lies, torch's fused attention and its usual AdamW",
    "plain bf16": "the same under bf16 autocast",
    "ours": "bf16 autocast, the perceptual network channels last, the attention that is fast here, fused AdamW",
    "compiled": "ours with torch.compile around the losses and the model",
}


@dataclass(kw_only=True, eq=False)
class Variant:
    """Training step of one variant, and the resources that it took."""

    run: Callable[[], object]
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    """Bytes above those in use before, at their highest."""


def make_step(config: DoveTrainConfig | PrefixTrainConfig, name: str, images: Tensor) -> Variant:
    """Make a variant of one training step on ``images``, the first of a run whose length may be given in epochs."""
    config = replace(config, run=replace(config.run, steps=config.run.steps or 1, epochs=0.0))
    plain = name.startswith("plain")
    kind = PrefixObjective if isinstance(config, PrefixTrainConfig) else DoveObjective
    torch.manual_seed(0)
    objective: Any = kind(config, Dove(config.model)).to(images.device).train()
    parameters = objective.trained()
    if plain:
        if objective.perceptual:
            objective.perceptual.to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.AdamW(parameters, lr=config.optim.lr, betas=config.optim.betas)
    else:
        optimizer = make_adamw(config.optim, parameters, config.optim.lr)
    losses = torch.compile(objective) if name == "compiled" else objective
    half = name != "plain fp32"

    attention = patch.object(transformer, "attend", F.scaled_dot_product_attention) if plain else nullcontext()

    def run() -> None:
        with torch.autocast(images.device.type, torch.bfloat16) if half else nullcontext(), attention:
            result = losses(images, Step(0))
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return Variant(run=run)


@contextmanager
def random_squeezenet() -> Iterator[None]:
    """Name a file of random weights as SqueezeNet's, for as long as it lasts."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "squeezenet.safetensors"
        save_file(squeezenet1_0(weights=None).state_dict(), weights)
        os.environ[SQUEEZENET_VARIABLE] = str(weights)
        yield


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """First steps, rounds, and the report."""
    config: Any = PRESETS[options.preset]
    network = config.loss.perceptual_network if config.loss.perceptual_network == "squeezenet" else "none"
    perceptual = config.loss.perceptual if network == "squeezenet" else 0.0
    config = replace(config, loss=replace(config.loss, perceptual=perceptual, perceptual_network=network, gan=0.0))
    device = torch.device(options.device)
    side = config.model.vqgan.image_size
    images = (torch.rand(options.batch_size, 3, side, side) * 2 - 1).to(device)
    steps = {name: make_step(config, name, images) for name in options.variants}
    for step in steps.values():
        step.first_seconds = stopwatch(step.run, device)
        step.memory = memory_of(step.run, device)
    peak = bf16_peak(device, "base")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        next(iter(steps.values())).run()
    for _ in range(options.repetitions):
        for step in steps.values():
            step.seconds.append(stopwatch(step.run, device))
    rows = [
        {
            "variant": name,
            "what": VARIANTS[name],
            "images_per_second": round(options.batch_size / statistics.median(step.seconds), 3),
            "seconds": round(statistics.median(step.seconds), 4),
            "seconds_min": round(min(step.seconds), 4),
            "first_seconds": round(step.first_seconds, 2),
            "share_of_peak": round(counter.get_total_flops() / statistics.median(step.seconds) / peak, 3),
            "peak_memory_mib": round(step.memory / 2**20),
        }
        for name, step in steps.items()
    ]
    ours = steps.get("ours")
    return {
        "preset": options.preset,
        "batch_size": options.batch_size,
        "repetitions": options.repetitions,
        "ratios": {
            f"ours_vs_{name.replace(' ', '_')}": round(median_quotient(ours.seconds, step.seconds), 3)
            for name, step in steps.items()
            if ours and step is not ours
        },
        "rows": rows,
        "gflop_per_image": round(counter.get_total_flops() / options.batch_size / 1e9, 1),
        "peak_gflops": round(peak / 1e9),
        **surroundings(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the report")
    tokenizers = [name for name, config in PRESETS.items() if type(config) in (DoveTrainConfig, PrefixTrainConfig)]
    parser.add_argument("--preset", choices=tokenizers, default="dove-tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain fp32", "plain bf16", "ours"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    with random_squeezenet():
        report = measure(options)
    write_report(report, options.json)


if __name__ == "__main__":
    main()
