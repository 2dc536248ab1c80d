"""Table 4: images per second and operations by number of tokens."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from dove.evaluation.operations import count_operations, tokenizer_operations
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
) -> list[dict[str, float]]:
    """Measure the columns of every entry that need a run, with ``mean_length``, by encoding and decoding a batch.

    After one warm-up each, every repetition runs all entries one after the other, so that a slow minute of the machine
    affects them all alike.
    """
    lengths: list[float] = []
    works: list[tuple[Callable[[], object], torch.device]] = []
    for entry in entries:
        tokenizer, device = entry.subject.tokenizer, entry.subject.device
        encode = partial(tokenizer.encode, batches[tokenizer.image_size].to(device), entry.policy)
        tokens = encode()
        tokenizer.decode(tokens)
        lengths.append(float(tokens.lengths.double().mean()))
        works += [(encode, device), (partial(tokenizer.decode, tokens), device)]
    rounds = ProgressBar(range(repetitions), desc="speed", unit="repetition")
    seconds = np.array([[stopwatch(*work) for work in works] for _ in rounds])
    rows = []
    for entry, length, encoding, decoding in zip(entries, lengths, seconds.T[::2], seconds.T[1::2], strict=True):
        images = len(batches[entry.subject.tokenizer.image_size])
        speeds = speed_columns("encode", images, encoding) | speed_columns("decode", images, decoding)
        rows.append({"mean_length": length, **speeds})
    return rows


def speed_columns(name: str, images: int, seconds: Float[np.ndarray, " R"]) -> dict[str, float]:
    """Compute images per second at the median repetition, and the quartiles' distance relative to the median."""
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {f"{name}_images_per_second": images / float(median), f"{name}_spread": float((high - low) / median)}


def stopwatch(work: Callable[[], object], device: torch.device) -> float:
    """Measure the seconds of a call, until the device has finished its work."""
    finish: Callable[[], object] = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    finish()
    started = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - started


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
    entries: Sequence[Entry],
    measured: Sequence[Mapping[str, float]],
    *,
    language_model: LlamaForCausalLM,
    text_tokens: int,
) -> list[dict[str, Any]]:
    """Make the rows: what `time_entries` measured, if anything, and operations of one image.

    ``lm_flops`` are those of the encoder and of a language model that reads the image's tokens and the text, without an
    answer; ``lm_multiply_adds`` are half as many.
    """
    rows = []
    for entry, found in ProgressBar(list(zip(entries, measured, strict=True)), desc="operations", unit="row"):
        columns: dict[str, Any] = {"mean_length": float(entry.positions), **dict.fromkeys(TIMED), **found}
        encode, decode = tokenizer_operations(entry.subject.tokenizer, entry.positions)
        read = encode + language_model_operations(language_model, round(columns["mean_length"]) + text_tokens)
        rows.append(
            {
                "model": entry.subject.name,
                "weights": entry.subject.weights,
                "num_tokens": label_of(entry.policy),
                **columns,
                "encode_flops": encode,
                "decode_flops": decode,
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
