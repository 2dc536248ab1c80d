"""Table 4: images per second and operations by number of tokens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dove.baselines.vqgan import VQGANTokenizer
from dove.checkpoint import shipped_checkpoints
from dove.config import DoveConfig, VQGANConfig
from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.evaluation.common import Images, Subject, choose_policies, label_of, labelled, load_subject
from dove.evaluation.operations import count_operations, decode_operations, encode_operations
from dove.lengths import Auto, Fixed, LengthPolicy
from dove.models.vqgan import VQGAN
from dove.protocol import Tokenizer
from dove.tokenizer import Dove
from dove.training.presets import PRESETS

META = torch.device("meta")
VQGAN_SUFFIX = " VQGAN"  # Suffix of a model's name for its VQGAN alone
VICUNA_7B = LlamaConfig()
"""The library's defaults are the sizes of the first Llama with 7 thousand million parameters, which Vicuna-7B has, too."""
TIMED = ("encode_images_per_second", "encode_spread", "decode_images_per_second", "decode_spread")
"""Columns that are empty where nothing was run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A tokenizer at one length, which becomes one row."""

    subject: Subject
    policy: LengthPolicy

    @property
    def positions(self) -> int:
        """Number of tokens that are generated, whether or not all are kept."""
        return self.policy.positions(self.subject.tokenizer.max_tokens)


@dataclass(frozen=True, kw_only=True, eq=False)
class Timing:
    """Seconds that an entry takes for a batch, by repetition."""

    images: int  # Number of images in the batch
    mean_length: float  # Mean number of tokens per image
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, float]:
        """Compute images per second at the median repetition, and the quartiles' distance relative to the median."""
        found: dict[str, float] = {}
        for name, seconds in (("encode", self.encode), ("decode", self.decode)):
            low, median, high = np.percentile(seconds, [25, 50, 75])
            found[f"{name}_images_per_second"] = self.images / float(median)
            found[f"{name}_spread"] = float((high - low) / median)
        return found


def load_speed_subjects(names: Sequence[str], device: torch.device) -> list[Subject]:
    """Load models; each ``Dove`` with a VQGAN is followed by that VQGAN alone.

    Args:
        names: checkpoints, or presets that are no checkpoints: those get random weights. Each may be LABEL=NAME.
        device: device of the models; the meta device to count the operations of presets alone.
    """
    found: list[Subject] = []
    for label, source in labelled(names).items():
        if is_preset(source):
            model = random_tokenizer(source, device)
            subject = Subject(label, model, device, "random weights", weights="random weights")
        else:
            subject = load_subject(source, torch.device("cpu") if device == META else device, label)
        found.append(subject)
        # Patches in the place of a VQGAN have no codebook, so they are no tokenizer by themselves.
        if isinstance(subject.tokenizer, Dove) and isinstance(subject.tokenizer.vqgan, VQGAN):
            vqgan = VQGANTokenizer(subject.tokenizer.vqgan).eval()
            found.append(replace(subject, name=f"{subject.name}{VQGAN_SUFFIX}", tokenizer=vqgan))
    return found


def is_preset(name: str) -> bool:
    """Tell whether a name is a preset's and not a checkpoint's."""
    return name in PRESETS and name not in shipped_checkpoints() and not Path(name).is_dir()


def random_tokenizer(preset: str, device: torch.device) -> Tokenizer:
    """Make an untrained tokenizer of a preset's sizes: it is as fast as a trained one."""
    config: object = getattr(PRESETS[preset], "model", None)
    with torch.device(device):
        if type(config) is DoveConfig:  # not one with queries, which is another class
            return Dove(config).eval()
        if isinstance(config, VQGANConfig):
            return VQGANTokenizer(VQGAN(config)).eval()
    raise UserError(f"the speed of preset {preset!r} cannot be measured from random weights; pass a checkpoint of it")


def make_entries(subject: Subject, num_tokens: Sequence[str]) -> list[Entry]:
    """Make the entries of a model for numbers of tokens and forms of ``auto``, by default for four shares of its capacity."""
    capacity, possible = subject.tokenizer.max_tokens, subject.tokenizer.token_counts
    shares = (max(1, capacity // part) for part in (8, 4, 2, 1))
    entries = []
    for policy in choose_policies(subject, num_tokens or [str(count) for count in shares if count in possible]):
        if not isinstance(policy, Fixed | Auto):
            raise UserError(f"num_tokens={str(policy)!r} has no speed of its own; pass numbers of tokens and auto")
        entries.append(Entry(subject=subject, policy=policy))
    return entries


def speed_images(
    images: Images | None, entries: Sequence[Entry], batch_size: int, seed: int
) -> dict[int, Float[Tensor, "B 3 _ _"]]:
    """Make a batch in [-1, 1] for every image size among the entries, from given images or else of noise."""
    batches: dict[int, Tensor] = {}
    for entry in entries:
        side = entry.subject.tokenizer.image_size
        if images is None and not isinstance(entry.policy, Fixed):
            raise UserError(f"num_tokens={str(entry.policy)!r} depends on the images; pass --data")
        if side in batches:
            continue
        if images is None:
            noise = torch.rand(batch_size, 3, side, side, generator=torch.Generator().manual_seed(seed))
            batches[side] = noise * 2 - 1
        else:
            batches[side] = next(images.batches(side, batch_size, "images")).pixels
    return batches


def time_entries(
    entries: Sequence[Entry], batches: dict[int, Float[Tensor, "B 3 _ _"]], repetitions: int
) -> list[Timing]:
    """Measure the seconds of encoding and decoding a batch at every entry.

    After one warm-up each, every repetition runs all entries one after the other, so that a slow minute of the machine
    affects them all alike.
    """
    timings: list[Timing] = []
    works: list[tuple[list[float], torch.device, Callable[[], object]]] = []
    for entry in entries:
        tokenizer, device = entry.subject.tokenizer, entry.subject.device
        batch = batches[tokenizer.image_size].to(device)
        encode = partial(tokenizer.encode, batch, entry.policy)
        tokens = encode()
        timings.append(Timing(images=len(batch), mean_length=float(tokens.lengths.double().mean())))
        works += [(timings[-1].encode, device, encode), (timings[-1].decode, device, partial(tokenizer.decode, tokens))]
        tokenizer.decode(tokens)
    for _ in ProgressBar(range(repetitions), desc="speed", unit="repetition"):
        for seconds, device, work in works:
            seconds.append(stopwatch(work, device))
    return timings


def stopwatch(work: Callable[[], object], device: torch.device) -> float:
    """Measure the seconds of a call, until the device has finished its work."""
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_language_model(config: LlamaConfig = VICUNA_7B) -> LlamaForCausalLM:
    """Make a Llama on the meta device: its sizes without its memory."""
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def language_model_operations(model: LlamaForCausalLM, positions: int) -> int:
    """Count the operations of one forward of a Llama over ``positions`` vectors, with its output layer at all of them."""
    inputs = torch.empty(1, positions, model.config.hidden_size, device="meta")
    # Given ready-made, or the library would look into the numbers for its shape.
    mask = torch.ones(1, 1, positions, positions, dtype=torch.bool, device="meta").tril()
    return count_operations(lambda: model(inputs_embeds=inputs, attention_mask=mask, use_cache=False))


def evaluate_speed(
    entries: Sequence[Entry], timings: Sequence[Timing | None], *, language_model: LlamaForCausalLM, text_tokens: int
) -> list[dict[str, Any]]:
    """Make the rows: speeds where they were measured, and operations of one image.

    ``lm_flops`` are those of the encoder and of a language model that reads the image's tokens and the text, without an
    answer; ``lm_multiply_adds`` are half as many.
    """
    rows = []
    for entry, timing in ProgressBar(list(zip(entries, timings, strict=True)), desc="operations", unit="row"):
        mean_length = timing.mean_length if timing else float(entry.positions)
        encode = encode_operations(entry.subject.tokenizer, entry.positions)
        read = encode + language_model_operations(language_model, round(mean_length) + text_tokens)
        rows.append(
            {
                "model": entry.subject.name,
                "weights": entry.subject.weights,
                "num_tokens": label_of(entry.policy),
                "mean_length": mean_length,
                **(timing.columns() if timing else dict.fromkeys(TIMED)),
                "encode_flops": encode,
                "decode_flops": decode_operations(entry.subject.tokenizer, entry.positions),
                "lm_flops": read,
                "lm_multiply_adds": read // 2,
            }
        )
    return add_ratios(rows)


def add_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the encoding speed relative to the same model's VQGAN alone, where both were measured."""
    speed = "encode_images_per_second"
    alone = {row["model"]: row[speed] for row in rows if row["model"].endswith(VQGAN_SUFFIX)}
    reference = {name.removesuffix(VQGAN_SUFFIX): value for name, value in alone.items()} | alone
    return [
        row
        | {"encode_speed_against_vqgan": row[speed] / reference[row["model"]] if reference.get(row["model"]) else None}
        for row in rows
    ]
