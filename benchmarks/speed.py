"""How fast DOVE is, against the straightforward composition of its parts and against TiTok and ALIT.

    python benchmarks/speed.py --json speed.json                  # everything, about ten minutes on two cores
    python benchmarks/speed.py --parts ours composition --repetitions 1 --no-small-batch
    python benchmarks/speed.py --scale tiny                       # a trial of the script itself, in seconds

All systems are measured in one process, in turn: a round runs every measurement once, ratios are the medians over
rounds of the quotients within a round, so that a slow minute falls on both sides alike; ``ratios_of_fastest`` compares
each side's fastest round, for machines that are disturbed within a round. Weights are random at the sizes
of the presets, which takes as long as trained ones. Images and tokens come and go in fp32.

The composition has the paper's vocabulary as EOS head, and so has ``dove-base`` here: the same weights give the same
tokens on both sides, which is checked first. The share of the matrix peak is that of matrix products and convolutions
really executed, per second, in the bf16 rate of a large product or convolution measured in the same rounds.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from composition import Composition, compose
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.adapter import FixedLength
from dove.baselines.alit import ALIT
from dove.baselines.config import ALITS, TITOKS
from dove.baselines.titok import TiTok
from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.evaluation.operations import count_operations, on_meta
from dove.evaluation.report import git_commit, hardware, versions
from dove.evaluation.speed import stopwatch
from dove.models.optimize import optimize
from dove.models.vqgan import Codebook
from dove.tokenizer import Dove
from dove.training.presets import PRESETS

PARTS = ("ours", "composition", "patch", "titok", "alit", "lengths")
TINY_BACKBONE = BackboneConfig(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
TINY_VQGAN = VQGANConfig(
    image_size=64, block_out_channels=(32, 32, 64, 64), layers_per_block=1, latent_channels=16, norm_groups=8
)
TINY = DoveConfig(vqgan=TINY_VQGAN, generator=TINY_BACKBONE, decoder=TINY_BACKBONE, max_tokens=64, vocab_size=512)
TINY_PATCH = replace(TINY, vqgan=replace(TINY_VQGAN, patch_size=8, block_out_channels=(32,), latent_channels=32))
ALIT_BENCH = PRESETS["alit-codes-bench"].model
RIVALS = {
    **TITOKS,
    **ALITS,
    "titok-tiny": replace(PRESETS["titok-32-bench"].model, image_size=64, patch_size=8),
    "alit-tiny": replace(
        ALIT_BENCH, patch_size=8, vqgan=replace(ALIT_BENCH.vqgan, image_size=64, channel_mult=(1, 1, 2, 4))
    ),
}
"""Published rivals and, for the tiny scale, those of the bench at 64 px."""
SCALES = {
    "base": (
        PRESETS["dove-base"].model,
        PRESETS["dove-base-patch"].model,
        ("titok-s128", "titok-b64", "titok-l32"),
        "alit-base",
    ),
    "tiny": (TINY, TINY_PATCH, ("titok-tiny",), "alit-tiny"),
}
"""Settings of DOVE with a VQGAN and with patches, and names of the rivals; the first TiTok is the one in the ratios."""


@dataclass(kw_only=True, eq=False)
class Measurement:
    """One thing that is timed, in every round once."""

    system: str
    work: str
    """encode or decode."""
    precision: str
    batch_size: int
    tokens: int
    run: Callable[[], object]
    operations: int = 0
    """Of a run; 0 where they are not counted."""
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    """Bytes above those in use before, at their highest."""

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        return self.system, self.work, self.precision, self.batch_size, self.tokens

    def row(self, peak: float) -> dict[str, Any]:
        """What the report says."""
        median = statistics.median(self.seconds)
        return {
            "system": self.system,
            "work": self.work,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "tokens": self.tokens,
            "seconds": round(median, 4),
            "seconds_min": round(min(self.seconds), 4),
            "images_per_second": round(self.batch_size / median, 3),
            "gflop_per_image": round(self.operations / self.batch_size / 1e9, 1) if self.operations else None,
            "share_of_peak": round(self.operations / median / peak, 3) if self.operations else None,
            "peak_memory_mib": round(self.memory / 2**20),
        }


class Bench:
    """The systems, what is measured of them, and the rounds."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = torch.device(options.device)
        self.measurements: list[Measurement] = []
        self.peaks: dict[str, list[float]] = {}
        self.equality: dict[str, float] = {}
        torch.manual_seed(0)
        self.base, self.patch, self.titoks, self.alit = SCALES[options.scale]
        sizes = [options.batch_size, *([1] if options.small_batch and options.batch_size > 1 else [])]
        side = self.base.vqgan.image_size
        self.batches = {size: (torch.rand(size, 3, side, side) * 2 - 1).to(self.device) for size in sizes}

    def add_dove(self, name: str, config: DoveConfig, *, beside: bool) -> None:
        """A DOVE in both precisions, where asked with the composition of the same weights."""
        plain = Dove(config).eval().to(self.device)
        composed = compose(plain).to(self.device) if beside else None
        for precision in ("fp32", "bf16"):
            model = optimize(copy.deepcopy(plain), precision)
            counts = [config.max_tokens]
            if "lengths" in self.options.parts and precision == "bf16":
                counts += [config.max_tokens // part for part in (2, 4, 8)]
            for size, images in self.batches.items():
                for count in counts if size == self.options.batch_size else counts[:1]:
                    tokens = model.encode(images, count)
                    self._add(name, precision, images, count, partial(model.encode, images, count), model, "encode")
                    if count == config.max_tokens:
                        self._add(name, precision, images, count, partial(model.decode, tokens), model, "decode")
            if composed is not None:
                self._compare(composed, model, precision)
        if composed is not None:
            self._add_composition(composed)

    def _add(
        self, name: str, precision: str, images: Tensor, tokens: int, run: Callable[[], object], model: Dove, work: str
    ) -> None:
        operations = dove_operations(model, work, tokens) * len(images)
        found = Measurement(
            system=name,
            work=work,
            precision=precision,
            batch_size=len(images),
            tokens=tokens,
            run=run,
            operations=operations,
        )
        self.measurements.append(found)

    def _add_composition(self, composed: Composition) -> None:
        """The composition as it is in fp32, and under autocast."""
        count = composed.config.max_tokens
        for precision in ("fp32", "bf16"):
            for size, images in self.batches.items():
                values, _ = composed.encode(images[:1], count)
                values = values.expand(size, -1, -1).contiguous()
                for work, run in (
                    ("encode", partial(composed.encode, images, count)),
                    ("decode", partial(composed.decode, values)),
                ):
                    self.measurements.append(
                        Measurement(
                            system="composition",
                            work=work,
                            precision=precision,
                            batch_size=size,
                            tokens=count,
                            run=autocast(run, self.device, precision),
                        )
                    )

    def _compare(self, composed: Composition, model: Dove, precision: str) -> None:
        """How far our tokens and images are from those of the composition in fp32."""
        images = self.batches[min(self.batches)][:1]
        expected, _ = composed.encode(images, composed.config.max_tokens)
        found = model.encode(images, composed.config.max_tokens).values
        self.equality |= {
            f"tokens_{precision}_max_difference": float((found - expected).abs().max()),
            f"tokens_{precision}_min_cosine": float(F.cosine_similarity(found, expected, dim=-1).min()),
            f"tokens_{precision}_cosine": float(F.cosine_similarity(found.flatten(), expected.flatten(), dim=0)),
        }
        pixels = composed.decode(expected)
        tokens = replace(model.encode(images, composed.config.max_tokens), values=expected)
        error = (model.decode(tokens) - pixels).abs()
        self.equality[f"images_{precision}_max_difference"] = float(error.max())

    def add_rival(self, name: str, model: Any, sizes: Sequence[int]) -> None:
        """A fixed-length or roll-out tokenizer, in fp32 and in bf16: weights in bf16 where it allows that, else by autocast."""
        model = model.eval().to(self.device)
        whole = isinstance(model, FixedLength)
        for precision, ready in (("fp32", model), ("bf16", half(copy.deepcopy(model)) if whole else model)):
            for size in sizes:
                images = self.batches[size]
                tokens = ready.encode(images, model.max_tokens)
                # Codes are compared, and mixed, in fp32: only a fixed-length encoder goes without a mixture of types.
                for work, run in (
                    ("encode", partial(ready.encode, images, model.max_tokens)),
                    ("decode", partial(model.decode, tokens)),
                ):
                    run = run if whole and work == "encode" else autocast(run, self.device, precision)
                    self.measurements.append(
                        Measurement(
                            system=name,
                            work=work,
                            precision=precision,
                            batch_size=size,
                            tokens=model.max_tokens,
                            run=run,
                        )
                    )

    def measure(self) -> None:
        """A warm-up, which also tells the memory, and the rounds."""
        for found in self.measurements:
            found.memory = memory_of(found.run, self.device)
            print(f"warm-up: {' '.join(map(str, found.key))}", file=sys.stderr, flush=True)
        for number in range(self.options.repetitions):
            for name, operations, work in peak_work(self.device, self.options.scale):
                self.peaks.setdefault(name, []).append(max(operations / stopwatch(work, self.device) for _ in range(5)))
            for found in self.measurements:
                found.seconds.append(stopwatch(found.run, self.device))
            print(f"round {number + 1} of {self.options.repetitions}", file=sys.stderr, flush=True)

    def report(self) -> dict[str, Any]:
        """Rows, ratios, and where they come from."""
        peaks = {name: statistics.median(rates) for name, rates in self.peaks.items()}
        peak = max(rate for name, rate in peaks.items() if "bf16" in name)
        measured = self.measurements, self.options.batch_size, self.titoks[0]
        return {
            "ratios": ratios(*measured),
            "ratios_of_fastest": ratios(*measured, fastest_quotient),
            "equality": self.equality,
            "peaks_gflops": {name: round(rate / 1e9) for name, rate in peaks.items()},
            "rows": [found.row(peak) for found in self.measurements],
            "scale": self.options.scale,
            "batch_size": self.options.batch_size,
            "repetitions": self.options.repetitions,
            "device": str(self.device),
            **surroundings(),
        }


def dove_operations(model: Dove, work: str, tokens: int) -> int:
    """Operations that a model executes for one image, counted on the meta device."""
    meta = on_meta(model)
    side, config = model.image_size, model.config
    if work == "encode":
        images = torch.empty(1, 3, side, side, device="meta")
        return count_operations(lambda: meta.generate(images, tokens))
    values = torch.empty(1, config.max_tokens, config.token_dim, device="meta")
    return count_operations(lambda: meta.reconstruct_from(values))


def autocast(run: Callable[[], object], device: torch.device, precision: str) -> Callable[[], object]:
    """The call under bf16 autocast, or as it is."""

    def under() -> object:
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
            return run()

    return under


def half(model: nn.Module) -> nn.Module:
    """The model in bf16 with its convolutions' channels last; codebooks stay in fp32, which their distances need."""
    model.to(torch.bfloat16, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, Codebook):
            module.float()
    return model


def peak_work(device: torch.device, scale: str) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Large products and convolutions: name, operations and call."""
    side, cells = (4096, 128) if scale == "base" else (512, 32)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        size = side if dtype == torch.bfloat16 else side // 2
        first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        yield f"{name} product", 2 * size**3, partial(torch.mm, first, second, out=torch.empty_like(first))
        images, weight = (
            torch.randn(*shape, device=device).to(dtype, memory_format=torch.channels_last)
            for shape in ((1, 256, cells, cells), (256, 256, 3, 3))
        )
        run = torch.no_grad()(partial(F.conv2d, images, weight, padding=1))
        yield f"{name} convolution", 2 * 9 * 256 * 256 * cells**2, run


def bf16_peak(device: torch.device, scale: str) -> float:
    """Operations a second of the faster of a large bf16 product and convolution, each at its best of five."""
    return max(
        operations / min(stopwatch(work, device) for _ in range(5))
        for name, operations, work in peak_work(device, scale)
        if "bf16" in name
    )


def surroundings() -> dict[str, Any]:
    """What every report says of where it comes from."""
    return {"threads": torch.get_num_threads(), "hardware": hardware(), "versions": versions(), "commit": git_commit()}


def memory_of(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call takes above what was in use; 0 where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
        before = process_memory("VmRSS")
        run()
        return max(0, process_memory("VmHWM") - before)
    except OSError:
        run()
        return 0


def process_memory(name: str) -> int:
    """Bytes of this process, by the kernel's name for them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def median_quotient(ours: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds of the quotients within a round."""
    return statistics.median(b / a for a, b in zip(ours, other, strict=True))


def fastest_quotient(ours: Sequence[float], other: Sequence[float]) -> float:
    """Of each side's fastest round; what disturbs a machine only ever adds time."""
    return min(other) / min(ours)


def ratios(
    measurements: Sequence[Measurement],
    batch_size: int,
    titok: str,
    quotient: Callable[[Sequence[float], Sequence[float]], float] = median_quotient,
) -> dict[str, float]:
    """How many times as fast, for whatever was measured on both sides; ``quotient`` is of the seconds of their rounds."""
    found = {}
    full = {
        (item.system, item.work, item.precision): item.seconds
        for item in measurements
        if item.batch_size == batch_size
        and item.tokens == max(m.tokens for m in measurements if m.system == item.system)
    }
    for system in ("ours", "patch"):
        start = "" if system == "ours" else "patch_"
        for work in ("encode", "decode"):
            for precision in ("fp32", "bf16"):
                found[f"{start}{work}_vs_{precision}_composition"] = (
                    (system, work, "bf16"),
                    ("composition", work, precision),
                )
            found[f"{start}{work}_fp32_vs_fp32_composition"] = ((system, work, "fp32"), ("composition", work, "fp32"))
    for precision, end in (("bf16", ""), ("fp32", "_fp32")):
        found[f"encode_vs_titok_s128{end}"] = (("patch", "encode", precision), (titok, "encode", precision))
        found[f"vqgan_encode_vs_titok_s128{end}"] = (("ours", "encode", precision), (titok, "encode", precision))
    return {
        name: round(quotient(full[ours], full[other]), 3)
        for name, (ours, other) in found.items()
        if ours in full and other in full
    } | round_trips(full, quotient)


def round_trips(
    full: dict[tuple[str, str, str], list[float]], quotient: Callable[[Sequence[float], Sequence[float]], float]
) -> dict[str, float]:
    """The same for encoding and decoding together."""
    seconds = {
        (system, precision): [sum(pair) for pair in zip(times, full[system, "decode", precision], strict=True)]
        for (system, work, precision), times in full.items()
        if work == "encode" and (system, "decode", precision) in full
    }
    return {
        f"{name}round_trip_vs_{precision}_composition": round(
            quotient(seconds[system, "bf16"], seconds["composition", precision]), 3
        )
        for name, system in (("", "ours"), ("patch_", "patch"))
        for precision in ("fp32", "bf16")
        if (system, "bf16") in seconds and ("composition", precision) in seconds
    }


def make_bench(options: argparse.Namespace) -> Bench:
    """All systems that were asked for."""
    bench = Bench(options)
    parts = options.parts
    if "ours" in parts or "composition" in parts:
        bench.add_dove("ours", replace(bench.base, eos_head="vocab"), beside="composition" in parts)
    if "patch" in parts:
        bench.add_dove("patch", bench.patch, beside=False)
    small = min(bench.batches)
    if "titok" in parts:
        for name in bench.titoks[: options.titoks]:
            sizes = list(bench.batches) if name == bench.titoks[0] else [small]
            bench.add_rival(name, TiTok(RIVALS[name]), sizes)
    if "alit" in parts:
        bench.add_rival(bench.alit, ALIT(RIVALS[bench.alit]), [small])
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--scale", choices=SCALES, default="base")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--titoks", type=int, default=3, help="how many of them, from the smallest on")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--no-small-batch", dest="small_batch", action="store_false", help="leave out batches of one")
    parser.add_argument("--repetitions", type=int, default=3, help="rounds after the warm-up")
    parser.add_argument("--threads", type=int, help="of the processor; by default torch's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    started = time.time()
    bench = make_bench(options)
    bench.measure()
    report = bench.report() | {
        "command": " ".join(["python", *sys.argv]),
        "minutes": round((time.time() - started) / 60, 1),
    }
    for row in report["rows"]:
        print(" ".join(f"{key}={value}" for key, value in row.items()))
    print(
        json.dumps(
            {name: report[name] for name in ("ratios", "ratios_of_fastest", "equality", "peaks_gflops")}, indent=2
        )
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
