"""Figure 6: distribution of the lengths, the loss by length, and the correlation of length and complexity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import laplace
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from dove.errors import UserError
from dove.evaluation.common import Images, Subject, default_lengths
from dove.evaluation.metrics import correlate, mean_squared_error
from dove.evaluation.plots import cloud, log_axis, looks, panels, style, to_png, token_axis
from dove.metrics import unit_range
from dove.photos.picture import Cell
from dove.processor import ImageProcessor
from dove.protocol import encode_each
from dove.tokens import format_token_count

if TYPE_CHECKING:
    from PIL import Image

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
LUMA = np.array([0.299, 0.587, 0.114])
EXAMPLES = 8
LEAST_LOSS = 1e-6  # Mean squared error (60 dB) at which the axis of losses ends: below it there is only rounding


@dataclass(frozen=True, eq=False)
class LengthStudy:
    """Lengths, losses and complexity of every image of a dataset for one model."""

    model: str
    max_tokens: int
    lengths: NDArray[np.int64]
    complexity: NDArray[np.float64]  # Laplacian variance of the grey image, levels 0 to 255
    losses: dict[int, NDArray[np.float64]]
    """Mean squared error ([0, 1] pixels) of every image, by fixed number of tokens."""
    extremes: list[list[Cell]]  # Two rows: the least and the most complex images with their lengths


def laplacian_variance(images: Float[Tensor, "B 3 H W"]) -> NDArray[np.float64]:
    """Compute the variance of the 4-neighbour Laplacian of the grey image, levels 0 to 255; images in [-1, 1]."""
    levels = unit_range(images).mul(255).permute(0, 2, 3, 1).double().cpu().numpy() @ LUMA
    return np.array([laplace(image).var() for image in levels])


def study_lengths(subject: Subject, images: Images, num_tokens: str, batch_size: int) -> LengthStudy:
    """Encode every image once; decode it at some fixed lengths."""
    tokenizer = subject.tokenizer
    fixed = default_lengths(tokenizer.token_counts)
    lengths: list[int] = []
    complexity: list[float] = []
    losses: dict[int, list[float]] = {k: [] for k in fixed}
    thumbnails: dict[int, Image.Image] = {}  # of the least and the most complex images so far
    processor = ImageProcessor(tokenizer.image_size)
    for batch in images.batches(tokenizer.image_size, batch_size, subject.name):
        originals = batch.pixels.to(subject.device)
        adaptive, *cut = encode_each(tokenizer, originals, [num_tokens, *fixed])
        thumbnails |= enumerate(processor.to_pil(batch.pixels), len(lengths))
        lengths += adaptive.lengths.tolist()
        complexity += laplacian_variance(batch.pixels).tolist()
        order = np.argsort(complexity, kind="stable")
        rows = [order[:EXAMPLES].tolist(), order[-EXAMPLES:].tolist()]
        thumbnails = {i: thumbnails[i] for row in rows for i in row}
        for k, tokens in zip(fixed, cut, strict=True):
            error = mean_squared_error(unit_range(tokenizer.decode(tokens)), unit_range(originals))
            losses[k] += error.tolist()
    if len(lengths) < 2:
        raise UserError("a study of lengths needs at least 2 images")
    extremes = [[Cell(thumbnails[i], f"{subject.name}: {format_token_count(lengths[i])}") for i in row] for row in rows]
    return LengthStudy(
        subject.name,
        tokenizer.max_tokens,
        np.array(lengths),
        np.array(complexity),
        {k: np.array(values) for k, values in losses.items()},
        extremes,
    )


def summarise(study: LengthStudy) -> dict[str, Any]:
    """Make the row of a model.

    Correlations are None where lengths or complexities are all equal; the logarithm leaves out images without any detail
    (``constant_images``).
    """
    lengths, complexity = study.lengths.astype(np.float64), study.complexity
    textured = complexity > 0
    return {
        "model": study.model,
        "images": len(lengths),
        "mean": float(lengths.mean()),
        "quantiles": {f"p{round(100 * q)}": float(np.quantile(lengths, q)) for q in QUANTILES},
        "pearson": correlate(pearsonr, lengths, complexity),
        "pearson_log": correlate(pearsonr, lengths[textured], np.log(complexity[textured])),
        "spearman": correlate(spearmanr, lengths, complexity),
        "constant_images": int((~textured).sum()),
        "loss_by_length": {
            str(k): {
                "mean": float(values.mean()),
                "p10": float(np.quantile(values, 0.1)),
                "p90": float(np.quantile(values, 0.9)),
            }
            for k, values in study.losses.items()
        },
    }


def plot_lengths(studies: Sequence[LengthStudy]) -> bytes:
    """Plot Figure 6 a, b and c: one row of panels per model."""
    colours = looks(study.model for study in studies)
    with style():
        figure, axes = panels(len(studies), 3)
        for row, study in enumerate(studies):
            histogram, loss, scatter = axes[3 * row : 3 * row + 3]
            _plot_study(histogram, loss, scatter, study, colours[study.model]["color"])
        longest = max(int(study.lengths.max()) for study in studies)
        for panel in axes[::3]:
            panel.set_xlim(0, longest + 1)
        return to_png(figure)


def _plot_study(histogram: Axes, loss: Axes, scatter: Axes, study: LengthStudy, colour: str) -> None:
    histogram.hist(study.lengths, bins=[k + 0.5 for k in range(study.max_tokens + 1)], color=colour)
    histogram.locator_params(integer=True)
    histogram.set(xlabel="tokens", ylabel="images", title=f"{study.model}: lengths")
    ticks = [k for k in sorted(study.losses) if study.losses[k].mean() > LEAST_LOSS] or [min(study.losses)]
    low, high = ([np.quantile(study.losses[k], q) for k in ticks] for q in (0.1, 0.9))
    loss.fill_between(ticks, low, high, color=colour, alpha=0.25, label="80% of the images")
    loss.plot(ticks, [study.losses[k].mean() for k in ticks], "o-", color=colour, label="mean")
    loss.set_yscale("log")
    if loss.get_ylim()[1] > LEAST_LOSS:  # what is below is rounding
        loss.set_ylim(bottom=max(LEAST_LOSS, loss.get_ylim()[0]))
    token_axis(loss, ticks, "tokens")
    loss.set(ylabel="mean squared error", title=f"{study.model}: loss by length")
    loss.legend(loc="lower left")
    textured = study.complexity > 0
    cloud(scatter, study.complexity[textured], study.lengths[textured], colour)
    log_axis(scatter)
    scatter.locator_params(axis="y", integer=True)
    pearson = summarise(study)["pearson_log"]
    shown = "" if pearson is None else f", r = {pearson:.2f} with its log"
    scatter.set(xlabel="Laplacian variance (grey levels²)", ylabel="tokens", title=f"{study.model}{shown}")
