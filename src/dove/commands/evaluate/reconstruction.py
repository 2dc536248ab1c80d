"""``dove evaluate reconstruction``: quality by number of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    import torch

    from dove.evaluation.common import Images, Subject
    from dove.evaluation.networks import NetworkMetric

Metric = Literal["lpips", "fid", "perceptual_squeezenet", "fd_squeezenet"]


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions(EvaluationOptions):
    """Rebuild images from several numbers of tokens and measure the result: PSNR, SSIM, and what networks say.

    Writes reconstruction.json, .csv and .png (rate-distortion curves). Per row: mean_length; psnr with its deviation and 10th
    percentile over images; mse (pixels in [0, 1]) and that of the worst tenth; ssim. A row fixed@auto-mean gives every
    image auto's mean length.
    """

    name = "reconstruction"

    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto|...")] = ()
    """Numbers of tokens and policies such as auto; by default powers of two up to the model's capacity, and auto."""
    perceptual_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0, safetensors in torchvision's layout: gives perceptual_squeezenet and fd_squeezenet."""
    inception_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """pytorch-fid's Inception weights: gives fid without network."""
    lpips_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """VGG-16 in torchvision's layout: gives lpips without network."""
    metrics: Annotated[tuple[Metric, ...], tyro.conf.arg(metavar="METRIC...")] = ()
    """Beside PSNR and SSIM: lpips, fid (both download weights where no file is given), perceptual_squeezenet,
    fd_squeezenet. By default what the given files allow."""
    allow_few_images: bool = False
    """Frechet distances also of fewer images than features."""
    save_images: bool = False
    """Also write all reconstructions, in a subfolder for each length, and the originals as the models see them."""


def run(options: ReconstructionOptions) -> None:
    """Evaluate and write the report.

    Raises:
        UserError: for options that cannot work; for unreadable images, after all others are done.
    """
    from dove.evaluation.plots import plot_rate_distortion
    from dove.evaluation.reconstruction import evaluate_reconstruction
    from dove.evaluation.report import evaluate, rows_to_text

    def measure(subjects: "list[Subject]", images: "Images") -> tuple[dict[str, Any], dict[str, bytes]]:
        metrics = make_metrics(options, len(images), subjects[0].device)
        rows: list[dict[str, Any]] = []
        comparisons: list[dict[str, Any]] = []
        for subject in subjects:
            found, compared = evaluate_reconstruction(
                subject,
                images,
                options.num_tokens,
                metrics,
                batch_size=options.batch_size,
                pictures=options.output / "images" if options.save_images else None,
            )
            rows += found
            comparisons += compared
        print(rows_to_text(rows))
        for comparison in comparisons:
            print(describe_comparison(comparison))
        return {"rows": rows, "auto_vs_fixed": comparisons}, {"reconstruction.png": plot_rate_distortion(rows)}

    evaluate(options, measure)


def make_metrics(options: ReconstructionOptions, images: int, device: "torch.device") -> "list[NetworkMetric]":
    """The networks that the options ask for, checked against the number of images.

    Raises:
        UserError: if a network's weights cannot be had, or the images are too few for a Frechet distance.
    """
    from dove.evaluation.metrics import require_enough_images
    from dove.evaluation.networks import FeatureMetric, InceptionMetric, LpipsMetric, NetworkMetric
    from dove.frozen.registry import load_network

    wanted: set[str] = {*options.metrics} or given_metrics(options)
    metrics: list[NetworkMetric] = []
    if wanted & {"perceptual_squeezenet", "fd_squeezenet"}:
        metrics.append(FeatureMetric(load_network("squeezenet", options.perceptual_weights), device))
    if "lpips" in wanted:
        metrics.append(LpipsMetric(options.lpips_weights, device))
    if "fid" in wanted:
        metrics.append(InceptionMetric(options.inception_weights, device))
    for metric in metrics:
        metric.keep(wanted)
        if metric.frechet_name and not options.allow_few_images:
            require_enough_images(images, metric.width, metric.frechet_name)
    return metrics


def given_metrics(options: ReconstructionOptions) -> set[str]:
    """What the given files allow."""
    found: set[str] = set()
    if options.perceptual_weights:
        found |= {"perceptual_squeezenet", "fd_squeezenet"}
    if options.lpips_weights:
        found.add("lpips")
    if options.inception_weights:
        found.add("fid")
    return found


def describe_comparison(compared: dict[str, Any]) -> str:
    """What an adaptive policy gains over one length for all, in one line."""
    ratio = compared["psnr_std_ratio"]
    evenness = "has no deviation to compare" if ratio is None else f"has {ratio:.3f} of its PSNR deviation"
    return (
        f"{compared['model']}: {compared['num_tokens']} (mean {compared['mean_length']:.1f} tokens) against "
        f"{compared['fixed_num_tokens']} for all: {evenness}, its worst tenth gains {compared['worst10_gain_db']:+.2f} dB"
    )
