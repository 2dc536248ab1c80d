"""Where the time of an optimized DOVE goes on a CPU: kinds of work, and each shape of convolution beside what it reaches alone.

    python benchmarks/time_profile.py --json FILE
    python benchmarks/time_profile.py --scale tiny                # a trial of the script itself, in seconds

Of every part the fastest of the repetitions counts. A convolution alone runs again and again on the same numbers, with its
weights and images in the caches: no composition of such convolutions is faster than the sum of those times.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from output import write_report
from speed import SCALES, bf16_peak, dove_operations, surroundings
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from dove.evaluation.speed import stopwatch
from dove.models.optimize import optimize
from dove.tokenizer import Dove

CPU = torch.device("cpu")
KINDS = {
    "convolutions": ("mkldnn_convolution", "slow_conv", "convolution_overrideable"),
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mkldnn_linear"),
    "attention": ("_scaled_dot_product_flash_attention_for_cpu",),
    "norms": ("native_group_norm", "native_layer_norm"),
    "activations": ("silu", "silu_", "gelu", "gelu_"),
}
"""Names of torch's operators by kind; all others are "sums, copies and the rest"."""


@dataclass
class Shape:
    """Convolutions of one shape in a run."""

    run: Callable[[], object]
    """One of them alone."""
    operations: int
    """Of one."""
    calls: int = 0
    seconds: float = 0.0


def convolutions(model: nn.Module, run: Callable[[], object]) -> dict[str, Shape]:
    """Every shape of convolution that ``run`` has ``model`` do, with the seconds of its calls."""
    found: dict[str, Shape] = {}
    started: list[float] = []

    def before(_module: nn.Conv2d, _inputs: tuple[Tensor]) -> None:
        started.append(time.perf_counter())

    def after(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        seconds = time.perf_counter() - started.pop()
        images, height, width = len(output), *output.shape[2:]
        kernel, stride = (" x ".join(map(str, sizes)) for sizes in (module.kernel_size, module.stride))
        channels = f"{module.in_channels} to {module.out_channels} channels"
        name = f"{channels}, {kernel} every {stride}, {height} x {width}, {images} at once"
        if name not in found:
            operations = 2 * module.weight.numel() * height * width * images
            held = inputs[0].clone(memory_format=torch.preserve_format)
            found[name] = Shape(run=lambda: nn.Conv2d.forward(module, held), operations=operations)
        found[name].calls += 1
        found[name].seconds += seconds

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    run()
    for hook in hooks:
        hook.remove()
    return found


def seconds_by_kind(run: Callable[[], object]) -> dict[str, float]:
    """Seconds inside torch's operators, without what they call in turn."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        run()
    kind_of = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    found: Counter[str] = Counter()
    for row in watched.key_averages():
        found[kind_of.get(row.key, "sums, copies and the rest")] += row.self_cpu_time_total / 1e6
    return dict(found)


def least(repetitions: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of every part the fewest seconds; what disturbs a machine only ever adds time."""
    return {name: min(found[name] for found in repetitions) for name in repetitions[0]}


def account(model: Dove, run: Callable[[], object], operations: int, peak: float, repetitions: int) -> dict[str, Any]:
    """What one run of the model is made of.

    Args:
        model: optimized, on the CPU.
        run: the call.
        operations: that it takes.
        peak: operations a second that the processor reaches at best.
        repetitions: of everything, of which the fastest counts.
    """
    run()
    whole = min(stopwatch(run, CPU) for _ in range(repetitions))
    kinds = least([seconds_by_kind(run) for _ in range(repetitions)])
    runs = [convolutions(model, run) for _ in range(repetitions)]
    inside = least([{name: shape.seconds for name, shape in shapes.items()} for shapes in runs])
    rows = []
    for name, shape in runs[0].items():
        alone = shape.calls * min(stopwatch(torch.no_grad()(shape.run), CPU) for _ in range(10))
        at_peak = shape.operations * shape.calls / peak
        rows.append(
            {
                "shape": name,
                "calls": shape.calls,
                "seconds": round(inside[name], 4),
                "seconds_alone": round(alone, 4),
                "share_of_peak": round(at_peak / inside[name], 3),
                "share_of_peak_alone": round(at_peak / alone, 3),
            }
        )
    rows.sort(key=lambda row: -row["seconds"])
    alone = sum(row["seconds_alone"] for row in rows)
    total = sum(kinds.values())
    return {
        "seconds": round(whole, 4),
        "share_of_peak": round(operations / whole / peak, 3),
        "seconds_by_kind": {kind: round(seconds, 4) for kind, seconds in sorted(kinds.items())},
        "convolutions": rows,
        "convolution_seconds_alone": round(alone, 4),
        "share_of_peak_with_convolutions_as_alone": round(
            operations / (total - kinds["convolutions"] + alone) / peak, 3
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--scale", choices=SCALES, default="base")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = optimize(Dove(SCALES[options.scale][0]).eval(), "bf16")
    count = model.max_tokens
    images = torch.rand(options.batch_size, 3, model.image_size, model.image_size) * 2 - 1
    tokens = model.encode(images, count)
    peak = bf16_peak(CPU, options.scale)
    runs = {"encode": lambda: model.encode(images, count), "decode": lambda: model.decode(tokens)}
    report = {
        work: account(model, run, dove_operations(model, work, count) * len(images), peak, options.repetitions)
        for work, run in runs.items()
    } | {
        "peak_gflops": round(peak / 1e9),
        "scale": options.scale,
        "batch_size": options.batch_size,
        "repetitions": options.repetitions,
        **surroundings(),
    }
    write_report(report, options.json)


if __name__ == "__main__":
    main()
