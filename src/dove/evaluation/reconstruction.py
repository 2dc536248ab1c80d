"""Quality of reconstructions by number of tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dove.errors import UserError, writing
from dove.evaluation.common import Images, Subject, choose_policies, label_of, make_slug
from dove.evaluation.metrics import FeatureStatistics, frechet_distance, mean_squared_error, ssim
from dove.evaluation.networks import ImageFeatures, NetworkMetric
from dove.evaluation.operations import tokenizer_operations
from dove.lengths import Fixed, LengthPolicy
from dove.metrics import LEAST_ERROR, decibels, unit_range
from dove.processor import ImageProcessor
from dove.protocol import encode_each

WORST_SHARE = 0.1
_counted: dict[tuple[str, int], int] = {}
"""Multiply-adds of an image by a checkpoint's hash and a number of tokens; one process may measure several sets of images."""


@dataclass
class Meter:
    """Measurements of one policy over all images, for one row."""

    label: int | str
    lengths: list[int] = field(default_factory=list)
    per_image: dict[str, list[float]] = field(default_factory=dict)
    statistics: dict[str, FeatureStatistics] = field(default_factory=dict)
    numbers: int = 0

    def add(self, name: str, values: Tensor) -> None:
        """Add one value for each image of a batch."""
        self.per_image.setdefault(name, []).extend(values.tolist())

    def add_features(self, metric: NetworkMetric, features: ImageFeatures) -> None:
        """Add the features of a batch to the statistics of a Frechet distance, if the metric offers one."""
        if metric.frechet_name and features.pooled is not None:
            self.statistics.setdefault(metric.frechet_name, FeatureStatistics(metric.width)).update(features.pooled)

    def row(self, model: str, originals: Mapping[str, FeatureStatistics]) -> dict[str, Any]:
        """Make the row, with the Frechet distances to the originals."""
        mse, quality = (np.array(self.per_image[name]) for name in ("mse", "psnr"))
        worst = np.sort(mse)[-max(1, round(WORST_SHARE * len(mse))) :]
        row = {
            "model": model,
            "num_tokens": self.label,
            "mean_length": float(np.mean(self.lengths)),
            "psnr": float(quality.mean()),
            "psnr_std": float(quality.std()),
            "psnr_p10": float(np.percentile(quality, 10)),
            "mse": float(mse.mean()),
            "mse_worst10": float(worst.mean()),
        }
        others = {name: float(np.mean(values)) for name, values in self.per_image.items() if name not in row}
        frechet = {name: frechet_distance(own, originals[name]) for name, own in self.statistics.items()}
        return row | others | {"numbers_a_token": self.numbers} | frechet


class Recorder:
    """Measurement of one model against the originals, in as many passes over the images as needed."""

    def __init__(
        self,
        subject: Subject,
        images: Images,
        metrics: Sequence[NetworkMetric],
        batch_size: int,
        pictures: Path | None = None,
    ):
        self.subject, self.images, self.metrics, self.batch_size = subject, images, metrics, batch_size
        self.pictures = None if pictures is None else pictures / make_slug(subject.name)
        self.originals = Meter("original")

    def record(self, policies: Sequence[LengthPolicy]) -> list[Meter]:
        """Fill one meter per policy in one pass, in which the encoder runs once for all."""
        tokenizer = self.subject.tokenizer
        meters = [Meter(label_of(policy)) for policy in policies]
        done, first = 0, not self.originals.statistics
        description = f"{self.subject.name} at {', '.join(map(str, policies))}"
        for batch in self.images.batches(tokenizer.image_size, self.batch_size, description):
            originals = batch.pixels.to(self.subject.device)
            features = [
                metric.features(originals) if first or metric.distance_name else ImageFeatures()
                for metric in self.metrics
            ]
            if first:
                for metric, found in zip(self.metrics, features, strict=True):
                    self.originals.add_features(metric, found)
            # Numbers keep the order and distinguish equal stems.
            names = [f"{number:06d}-{Path(key).stem}.png" for number, key in enumerate(batch.keys, done)]
            self._save("original", names, originals)
            for meter, tokens in zip(meters, encode_each(tokenizer, originals, policies), strict=True):
                rebuilt = tokenizer.decode(tokens)
                meter.lengths += tokens.lengths.tolist()
                meter.numbers = tokens.values.shape[-1]
                self._measure(meter, rebuilt, originals, features)
                self._save(str(meter.label), names, rebuilt)
            done += len(batch)
        return meters

    def _measure(self, meter: Meter, rebuilt: Tensor, originals: Tensor, features: Sequence[ImageFeatures]) -> None:
        scaled, truth = unit_range(rebuilt), unit_range(originals)
        error = mean_squared_error(scaled, truth)
        if not error.isfinite().all():
            raise UserError(f"{self.subject.name}: some reconstructions are not finite; check the checkpoint")
        meter.add("mse", error)
        meter.add("l1", (scaled.double() - truth.double()).abs().mean(dim=(1, 2, 3)))
        meter.add("psnr", decibels(error))
        meter.add("ssim", ssim(scaled, truth))
        for metric, original in zip(self.metrics, features, strict=True):
            found = metric.features(rebuilt)
            if metric.distance_name:
                meter.add(metric.distance_name, metric.distance(found, original))
            meter.add_features(metric, found)

    def _save(self, label: str, names: Sequence[str], pixels: Tensor) -> None:
        if self.pictures is None:
            return
        folder = self.pictures / label
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, picture in zip(names, ImageProcessor(pixels.shape[-1]).to_pil(pixels), strict=True):
                picture.save(folder / name)


def evaluate_reconstruction(
    subject: Subject,
    images: Images,
    num_tokens: Sequence[str],
    metrics: Sequence[NetworkMetric],
    *,
    batch_size: int,
    pictures: Path | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure the quality of a model's reconstructions by number of tokens.

    Each adaptive policy is followed by a row ``fixed@POLICY-mean``: one length for all images, the policy's own mean
    length, rounded. That length is known only after the first pass; such rows take a second pass together.

    Returns:
        The rows, and the comparison of each adaptive policy with its fixed length.
    """
    policies = choose_policies(subject, num_tokens)
    recorder = Recorder(subject, images, metrics, batch_size, pictures)
    meters = recorder.record(policies)
    adaptive = [meter for meter, policy in zip(meters, policies, strict=True) if not isinstance(policy, Fixed)]
    averages = [float(np.mean(meter.lengths)) for meter in adaptive]
    means = [min(subject.tokenizer.token_counts, key=lambda count: abs(count - mean)) for mean in averages]
    measured = {meter.label: meter for meter in meters}
    if missing := [Fixed(length) for length in dict.fromkeys(means) if length not in measured]:
        measured |= {meter.label: meter for meter in recorder.record(missing)}
    fixed = [
        replace(measured[length], label=f"fixed@{meter.label}-mean")
        for meter, length in zip(adaptive, means, strict=True)
    ]
    originals = recorder.originals.statistics
    rows = {meter.label: meter.row(subject.name, originals) for meter in (*meters, *fixed)}
    comparisons = [
        compare_with_fixed(rows[meter.label], rows[beside.label], length)
        for meter, beside, length in zip(adaptive, fixed, means, strict=True)
    ]
    return list(rows.values()), comparisons


def compare_with_fixed(adaptive: dict[str, Any], fixed: dict[str, Any], num_tokens: int) -> dict[str, Any]:
    """Compare an adaptive policy with an equal number of tokens for every image.

    ``psnr_std_ratio`` is the standard deviation of its PSNR over the fixed length's (below 1: more even);
    ``worst10_gain_db`` says by how many decibels the mean squared error of its worst tenth of images is lower.
    """
    ratio = adaptive["psnr_std"] / fixed["psnr_std"] if fixed["psnr_std"] else None
    gain = 10 * float(np.log10(max(fixed["mse_worst10"], LEAST_ERROR) / max(adaptive["mse_worst10"], LEAST_ERROR)))
    return {
        "model": adaptive["model"],
        "num_tokens": adaptive["num_tokens"],
        "mean_length": adaptive["mean_length"],
        "fixed_num_tokens": num_tokens,
        "psnr_std_ratio": ratio,
        "worst10_gain_db": gain,
    }


def add_facts(rows: Sequence[dict[str, Any]], subject: Subject) -> None:
    """Add columns about a model to its rows.

    They are ``image_size``, ``parameters``, and where they are known ``loss_networks``, ``bits_a_token`` of models with codes,
    ``images_seen``, and ``multiply_adds`` of encoding and decoding one image at a fixed number of tokens.
    """
    tokenizer = subject.tokenizer
    assert isinstance(tokenizer, nn.Module)
    facts: dict[str, Any] = {"loss_networks": subject.loss_networks} if subject.loss_networks else {}
    facts |= {
        "image_size": tokenizer.image_size,
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),
    }
    config = getattr(tokenizer, "config", None) or getattr(getattr(tokenizer, "vqgan", None), "config", None)
    if codes := getattr(config, "codebook_size", None):
        facts["bits_a_token"] = math.log2(codes)
    if subject.images_seen is not None:
        facts["images_seen"] = subject.images_seen
    for row in rows:
        row.update(facts)
        if isinstance(count := row["num_tokens"], int):
            key = (subject.sha256, count)
            if key not in _counted:
                _counted[key] = sum(tokenizer_operations(tokenizer, count)) // 2
            row["multiply_adds"] = _counted[key]
