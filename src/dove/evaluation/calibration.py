"""Calibration of predicted quality, and the results of the length policies that rely on it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr
from tqdm import tqdm

from dove.errors import UserError
from dove.evaluation.common import Images, Subject
from dove.evaluation.metrics import mean_squared_error
from dove.evaluation.plots import BEST_PSNR, COLOURS, GREY, cloud, panels, style, to_png, token_axis
from dove.evaluation.reconstruction import unit_range
from dove.lengths import Trial, parse_length_policy
from dove.lengths.budget import Budget, spend
from dove.metrics import LEAST_ERROR
from dove.models.eos import EosScores
from dove.protocol import PredictsQuality
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


def calibrate(
    subject: Subject,
    images: Images,
    *,
    lengths: Sequence[int],
    psnr: Sequence[float],
    budgets: Sequence[float],
    batch_size: int,
) -> Calibration:
    """Encode every image once; decode it at fixed lengths and at those that each policy chooses."""
    model = subject.tokenizer
    if not isinstance(model, PredictsQuality) or not model.predicts_quality:
        raise UserError(f"{subject.name} predicts no quality; pass a model with eos_head=quality, such as dove-tiny")
    grid = sorted({1, *lengths, model.max_tokens})
    if grid[0] < 1 or grid[-1] > model.max_tokens:
        raise UserError(f"--lengths {' '.join(map(str, lengths))}: {subject.name} has 1 to {model.max_tokens} tokens")
    requests = [f"{kind}psnr>={x:g}" for x in psnr for kind in ("", "search ")]
    predicted, errors, values, originals = _encode(subject, model, images, grid, batch_size)
    if len(predicted) < 2:
        raise UserError("a calibration needs at least 2 images")
    told = tqdm(requests, desc=f"{subject.name}: requests", unit="request", disable=None, leave=False)
    outcomes = [_follow(subject, request, predicted, values, originals, batch_size) for request in told]
    scores = EosScores(probability=predicted, margin=predicted, quality=predicted)
    for mean in tqdm(budgets, desc=f"{subject.name}: budgets", unit="budget", disable=None, leave=False):
        started = time.perf_counter()
        spent = Budget(mean).lengths(scores)
        seconds = time.perf_counter() - started
        known = spend(torch.from_numpy(interpolate(errors, grid, model.max_tokens)), int(spent.sum()))
        fixed = _as_even_as_possible(len(spent), int(spent.sum()))
        for name, cut in ((f"budget {mean:g}", spent), (f"known {mean:g}", known), (f"fixed {mean:g}", fixed)):
            reached = _errors(subject, values, originals, cut, batch_size)
            outcomes.append(Outcome(name, cut.numpy(), reached, seconds if name.startswith("budget") else 0.0))
    return Calibration(subject.name, grid, predicted.double().numpy(), errors, outcomes)


def interpolate(errors: Curves, lengths: Sequence[int], max_tokens: int) -> Curves:
    """Interpolate errors at every number of tokens from some (1 and K among them), linearly in the logarithms of both."""
    wanted, known = np.log(np.arange(1, max_tokens + 1)), np.log(lengths)
    logs = np.log(np.maximum(errors, LEAST_ERROR))
    curves: Curves = np.array([np.interp(wanted, known, row) for row in logs])
    return np.exp(curves)


def decibels(errors: Curves) -> Curves:
    """Convert errors of pixels in [0, 1] to PSNR; at most 100 dB."""
    return -10 * np.log10(np.maximum(errors, LEAST_ERROR))


@torch.no_grad()
def _encode(
    subject: Subject, model: PredictsQuality, images: Images, grid: Sequence[int], batch_size: int
) -> tuple[torch.Tensor, Curves, torch.Tensor, torch.Tensor]:
    """Compute predicted PSNR (M, K), errors (M, lengths), all tokens (M, K, D) and images (M, 3, S, S), on the CPU."""
    predicted, errors, values, originals = [], [], [], []
    for batch in images.batches(subject.tokenizer.image_size, batch_size, subject.name):
        tokens, quality = model.predict_quality(batch.pixels.to(subject.device))
        predicted.append(quality.cpu())
        values.append(tokens.values.cpu())
        originals.append(batch.pixels)
        cuts = [torch.full((len(batch.pixels),), k) for k in grid]
        errors.append(np.stack([_errors(subject, values[-1], batch.pixels, cut, batch_size) for cut in cuts], axis=1))
    return torch.cat(predicted), np.concatenate(errors), torch.cat(values), torch.cat(originals)


@torch.no_grad()
def _errors(
    subject: Subject, values: torch.Tensor, originals: torch.Tensor, lengths: torch.Tensor, batch_size: int
) -> Curves:
    device = subject.device
    found = []
    for part, pixels, cut in zip(
        *(torch.split(tensor, batch_size) for tensor in (values, originals, lengths)), strict=True
    ):
        rebuilt = subject.tokenizer.decode(Tokens.cut(part.to(device), cut.to(device)))
        found.append(mean_squared_error(unit_range(rebuilt), unit_range(pixels.to(device))).cpu().numpy())
    return np.concatenate(found)


@torch.no_grad()
def _follow(
    subject: Subject,
    request: str,
    predicted: torch.Tensor,
    values: torch.Tensor,
    originals: torch.Tensor,
    batch_size: int,
) -> Outcome:
    """Choose lengths for all images by a policy, batch by batch, with the time that takes, and measure the result."""
    model, device = subject.tokenizer, subject.device
    policy = parse_length_policy(request, model.max_tokens)
    chosen, seconds = [], 0.0
    for quality, part, pixels in zip(
        *(torch.split(tensor, batch_size) for tensor in (predicted, values, originals)), strict=True
    ):
        on_device = part.to(device)

        def rebuild(lengths: torch.Tensor, tokens: torch.Tensor = on_device) -> torch.Tensor:
            return model.decode(Tokens.cut(tokens, lengths))

        quality = quality.to(device)
        eos = EosScores(probability=quality, margin=quality, quality=quality)
        trial = Trial(images=pixels.to(device), reconstruct=rebuild)
        started = time.perf_counter()
        chosen.append(policy.lengths(eos, trial).cpu())
        seconds += time.perf_counter() - started
    lengths = torch.cat(chosen)
    return Outcome(str(policy), lengths.numpy(), _errors(subject, values, originals, lengths, batch_size), seconds)


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
                "correlation": float(pearsonr(predicted, measured).statistic)
                if np.ptp(measured) and np.ptp(predicted)
                else None,
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
