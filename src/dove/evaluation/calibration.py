"""Calibration of predicted quality, and the results of the length policies that rely on it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr

from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.evaluation.common import Images, Subject, require_capacity
from dove.evaluation.metrics import correlate, mean_squared_error
from dove.evaluation.options import CalibrationOptions
from dove.evaluation.plots import BEST_PSNR, COLOURS, GREY, cloud, panels, style, to_png, token_axis
from dove.lengths import Trial, parse_length_policy
from dove.lengths.budget import spend
from dove.metrics import LEAST_ERROR, unit_range
from dove.models.eos import EosScores
from dove.protocol import ScoresLengths
from dove.tokens import Tokens

Curves = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predicted and measured quality of every image for one model."""

    model: str
    lengths: list[int]  # Numbers of tokens at which the reconstructions were measured
    predicted: Curves  # (images, K): PSNR in dB that the model expects of every number of tokens
    measured: Curves  # (images, lengths): mean squared error ([0, 1] pixels)
    policies: "list[Outcome]"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one length policy."""

    policy: str
    lengths: NDArray[np.int64]
    errors: Curves  # (images,): mean squared error ([0, 1] pixels)
    seconds: float  # Seconds of choosing, without the encoding and the final decoding


def calibrate(subject: Subject, images: Images, options: CalibrationOptions) -> Calibration:
    """Encode every image once; decode it at fixed lengths and at those that each policy chooses."""
    model = subject.tokenizer
    if not isinstance(model, ScoresLengths) or not model.predicts_quality:
        raise UserError(f"{subject.name} predicts no quality; pass a model with eos_head=quality, such as dove-tiny")
    require_capacity("--lengths", options.lengths, subject)
    grid = sorted({1, *options.lengths, model.max_tokens})
    budgets = [parse_length_policy(f"budget {mean:g}", model.max_tokens) for mean in options.budgets]
    requests = [f"{kind}psnr>={x:g}" for x in options.psnr for kind in ("", "search ")]
    encoded = Encoded(subject, model, images, options.batch_size)
    count = len(encoded.predicted)
    if count < 2:
        raise UserError("a calibration needs at least 2 images")
    measured = ProgressBar(grid, desc=f"{subject.name}: lengths", unit="length")
    errors = np.stack([encoded.errors(torch.full((count,), k)) for k in measured], axis=1)
    told = ProgressBar(requests, desc=f"{subject.name}: requests", unit="request")
    outcomes = [encoded.follow(request) for request in told]
    scores = scores_of(encoded.predicted)
    pairs = list(zip(options.budgets, budgets, strict=True))
    for mean, budget in ProgressBar(pairs, desc=f"{subject.name}: budgets", unit="budget"):
        started = time.perf_counter()
        spent = budget.lengths(scores)
        seconds = time.perf_counter() - started
        known = spend(torch.from_numpy(interpolate(errors, grid, model.max_tokens)), int(spent.sum()))
        fixed = _as_even_as_possible(count, int(spent.sum()))
        for name, cut in ((f"budget {mean:g}", spent), (f"known {mean:g}", known), (f"fixed {mean:g}", fixed)):
            reached = encoded.errors(cut)
            outcomes.append(Outcome(name, cut.numpy(), reached, seconds if name.startswith("budget") else 0.0))
    return Calibration(subject.name, grid, encoded.predicted.double().numpy(), errors, outcomes)


def interpolate(errors: Curves, lengths: Sequence[int], max_tokens: int) -> Curves:
    """Interpolate errors at every number of tokens from some (1 and K among them), linearly in the logarithms of both."""
    wanted, known = np.log(np.arange(1, max_tokens + 1)), np.log(lengths)
    logs = np.log(np.maximum(errors, LEAST_ERROR))
    curves: Curves = np.array([np.interp(wanted, known, row) for row in logs])
    return np.exp(curves)


def decibels(errors: Curves) -> Curves:
    """Convert errors of pixels in [0, 1] to PSNR; at most 100 dB."""
    return -10 * np.log10(np.maximum(errors, LEAST_ERROR))


class Encoded:
    """All tokens of M images, (M, K, D), and the PSNR that is predicted of each number of them, (M, K), on the CPU."""

    @torch.no_grad()
    def __init__(self, subject: Subject, model: ScoresLengths, images: Images, batch_size: int) -> None:
        self.subject, self.batch_size = subject, batch_size
        predicted, values, originals = [], [], []
        for batch in images.batches(subject.tokenizer.image_size, batch_size, subject.name):
            tokens, eos = model.score_lengths(batch.pixels.to(subject.device))
            assert eos.quality is not None
            predicted.append(eos.quality.cpu())
            values.append(tokens.cpu())
            originals.append(batch.pixels)
        self.predicted, self.values, self.originals = map(torch.cat, (predicted, values, originals))

    @torch.no_grad()
    def errors(self, lengths: torch.Tensor) -> Curves:
        """Measure the mean squared error of every image cut to its length."""
        found = []
        for values, images, cut in self._batches(self.values, self.originals, lengths):
            rebuilt = self._rebuild(values, cut)
            found.append(mean_squared_error(unit_range(rebuilt), unit_range(images)).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def follow(self, request: str) -> Outcome:
        """Choose lengths by a policy, batch by batch, with the time that takes, and measure the result."""
        policy = parse_length_policy(request, self.subject.tokenizer.max_tokens)
        chosen, seconds = [], 0.0
        for quality, values, images in self._batches(self.predicted, self.values, self.originals):
            trial = Trial(images=images, reconstruct=partial(self._rebuild, values))
            started = time.perf_counter()
            chosen.append(policy.lengths(scores_of(quality), trial).cpu())
            seconds += time.perf_counter() - started
        lengths = torch.cat(chosen)
        return Outcome(str(policy), lengths.numpy(), self.errors(lengths), seconds)

    def _rebuild(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.subject.tokenizer.decode(Tokens.cut(values, lengths))

    def _batches(self, *tensors: torch.Tensor) -> Iterator[Iterator[torch.Tensor]]:
        for parts in zip(*(tensor.split(self.batch_size) for tensor in tensors), strict=True):
            yield (part.to(self.subject.device) for part in parts)


def scores_of(quality: torch.Tensor) -> EosScores:
    """Make the scores of policies that look at the predicted quality alone."""
    return EosScores(probability=quality, margin=quality, quality=quality)


def _as_even_as_possible(count: int, total: int) -> torch.Tensor:
    """Make ``count`` lengths that sum to ``total`` and differ by at most one, with the longer ones spread over the images."""
    return torch.diff(torch.arange(count + 1) * total // count)


def summarise(study: Calibration) -> list[dict[str, Any]]:
    """Make the rows of a model: one for each measured length, then one for each policy."""
    rows: list[dict[str, Any]] = []
    for column, k in enumerate(study.lengths):
        predicted, measured = study.predicted[:, k - 1], decibels(study.measured[:, column])
        rows.append(
            {
                "model": study.model,
                "kind": "length",
                "num_tokens": k,
                "mean_length": float(k),
                "predicted": float(predicted.mean()),
                "psnr": float(measured.mean()),
                "error": float(np.abs(predicted - measured).mean()),
                "correlation": correlate(pearsonr, predicted, measured),
                "mse": float(study.measured[:, column].mean()),
            }
        )
    by_name = {outcome.policy: outcome for outcome in study.policies}
    return rows + [_policy_row(study, outcome, by_name) for outcome in study.policies]


def _policy_row(study: Calibration, outcome: Outcome, by_name: dict[str, Outcome]) -> dict[str, Any]:
    quality = decibels(outcome.errors)
    row: dict[str, Any] = {
        "model": study.model,
        "kind": "policy",
        "num_tokens": outcome.policy,
        "mean_length": float(outcome.lengths.mean()),
        "psnr": float(quality.mean()),
        "psnr_std": float(quality.std()),
        "mse": float(outcome.errors.mean()),
        "seconds": outcome.seconds,
    }
    _, separator, number = outcome.policy.rpartition("psnr>=")
    if separator:
        row["missed_by"] = float(quality.mean() - float(number))
    kind, _, number = outcome.policy.partition(" ")
    if kind in ("budget", "known"):
        fixed, known = (by_name[f"{name} {number}"].errors.mean() for name in ("fixed", "known"))
        row["gain_over_fixed"] = float(10 * np.log10(fixed / outcome.errors.mean()))
        row["share_of_known"] = float((fixed - outcome.errors.mean()) / (fixed - known)) if fixed > known else None
    return row


def plot_calibration(studies: Sequence[Calibration]) -> bytes:
    """Plot predicted against measured quality, the error by length, and the results of the policies, for every model.

    Lengths whose mean PSNR is above ``BEST_PSNR`` are left out.
    """
    with style():
        figure, axes = panels(len(studies), 3)
        for row, study in enumerate(studies):
            scatter, curve, target = axes[3 * row : 3 * row + 3]
            known = decibels(study.measured)
            shown = [0, *(column for column in range(1, known.shape[1]) if known[:, column].mean() <= BEST_PSNR)]
            lengths, measured = [study.lengths[column] for column in shown], known[:, shown]
            predicted = study.predicted[:, [k - 1 for k in lengths]]
            cloud(scatter, measured, predicted, COLOURS[0])
            ends = [min(predicted.min(), measured.min()), max(predicted.max(), measured.max())]
            scatter.plot(ends, ends, color=GREY, linewidth=1)
            scatter.set(xlabel="measured PSNR (dB)", ylabel="predicted PSNR (dB)")
            scatter.set_title(f"{study.model}: mean error {np.abs(predicted - measured).mean():.2f} dB")
            _plot_by_length(curve, lengths, predicted, measured)
            _plot_targets(target, study)
        return to_png(figure)


def _plot_by_length(panel: Any, lengths: list[int], predicted: Curves, measured: Curves) -> None:
    panel.plot(lengths, np.abs(predicted - measured).mean(0), "o-", color=COLOURS[0], label="size of the error")
    panel.plot(lengths, (predicted - measured).mean(0), "s--", color=COLOURS[1], label="predicted less measured")
    panel.axhline(0, color=GREY, linewidth=1)
    token_axis(panel, [k for k in lengths if k & (k - 1) == 0])
    panel.set(ylabel="mean over images (dB)", title="error of the predicted PSNR")
    panel.legend()


def _plot_targets(panel: Any, study: Calibration) -> None:
    """Plot means against the requested PSNR, with the standard deviation over images as bars."""
    for kind, colour, marker, aside in (("", COLOURS[1], "o", -0.1), ("search ", COLOURS[2], "s", 0.1)):
        found = [o for o in study.policies if o.policy.startswith(f"{kind}psnr>=")]
        asked = [float(o.policy.rpartition(">=")[2]) + aside for o in found]
        reached = [decibels(o.errors) for o in found]
        label = "decoding (search)" if kind else "prediction"
        panel.errorbar(
            asked, [q.mean() for q in reached], [q.std() for q in reached], color=colour, marker=marker, label=label
        )
    ends = panel.get_xlim()
    panel.plot(ends, ends, color=GREY, linewidth=1)
    panel.set(xlabel="PSNR asked for (dB)", ylabel="PSNR reached (dB)", title="psnr>=x: mean and standard deviation")
    panel.legend()
