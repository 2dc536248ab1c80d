"""Rate and distortion: bits per image against PSNR, for tokens and for JPEG and WebP on the same images."""

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dove.errors import UserError
from dove.evaluation.common import Images, Subject, require_capacity
from dove.evaluation.options import RateOptions
from dove.evaluation.plots import looks, panels, style, to_png, token_axis
from dove.metrics import psnr
from dove.processor import ImageProcessor, pil_to_tensor
from dove.tokenizer import Dove
from dove.tokens import Tokens

START_OF_SCAN = b"\xff\xda"  # Marker between the tables of a JPEG file and its coded picture
Sums = dict[tuple[str, str, float | int], NDArray[np.float64]]
"""Number of images and their sums of bits and PSNR, by model, number of tokens, and fineness or quality setting."""
PROBES = 4  # Number of random directions in image space that estimate a decoder's sensitivity, for every batch


@dataclass(frozen=True, eq=False)
class ScalarQuantizer:
    """Uniform quantizer of every number of every token; its cost is that of ideal coding under a Laplace distribution."""

    location: Float[Tensor, "K D"]  # Medians of the numbers
    scale: Float[Tensor, "K D"]  # Mean absolute deviations from them, above 0
    step: Float[Tensor, "K D"]  # Distance of the levels at ``fineness`` 1, above 0

    @classmethod
    def fit(cls, values: Float[Tensor, "M K D"], sensitivity: Float[Tensor, "K D"]) -> "ScalarQuantizer":
        """Fit distributions by position and dimension, with steps by the sensitivity of the picture.

        With steps of one size in the picture (d x / d token times step is constant), every number adds the same squared
        error, which is the best division of it at high rates. Numbers that the decoder ignores get one level. Sensitivity
        is the length of the picture's change for a unit change of a number.
        """
        location = values.median(0).values
        scale = (values - location).abs().mean(0)
        largest = sensitivity.max()
        step = 1 / sensitivity.clamp(min=1e-3 * float(largest))
        return cls(location, scale.clamp(min=1e-6), step)

    def levels(self, values: Float[Tensor, "B K D"], fineness: float) -> Int[Tensor, "B K D"]:
        """Quantize tokens to integer levels; 0 is the median."""
        return ((values - self.location) / (self.step * fineness)).round().long()

    def values(self, levels: Int[Tensor, "B K D"], fineness: float) -> Float[Tensor, "B K D"]:
        """Convert levels back to tokens."""
        return self.location + levels * self.step * fineness

    def bits(self, levels: Int[Tensor, "B K D"], fineness: float) -> Float[Tensor, "B K"]:
        """Compute the cost of each token in bits: -log2 of its levels' probabilities, at most 32 bits per number."""
        width = (self.step * fineness / self.scale).double()
        size = levels.abs().double()
        # Integrals of exp(-|x|) / 2 over the cells of the levels, widths in units of the scale.
        zero = -torch.expm1(-width / 2)
        other = 0.5 * torch.exp(-(size - 0.5) * width) * -torch.expm1(-width)
        probability = torch.where(levels == 0, zero, other)
        return -torch.log2(probability.clamp(min=2**-32)).sum(-1).float()


@torch.no_grad()
def rate_of_tokens(subject: Subject, training: Images, images: Images, options: RateOptions) -> list[dict[str, Any]]:
    """Measure bits and PSNR of a model by number of tokens and by fineness of the levels."""
    model = subject.tokenizer
    if not isinstance(model, Dove):
        raise UserError(f"{subject.name} has no continuous tokens to round; pass a DOVE checkpoint")
    lengths, batch_size = options.num_tokens, options.batch_size
    require_capacity("--num-tokens", lengths, subject)
    batches = training.batches(model.image_size, batch_size, f"{subject.name}, fit")
    known = torch.cat([model.encode(batch.pixels.to(subject.device), model.max_tokens).values for batch in batches])
    generator = torch.Generator().manual_seed(options.seed)
    quantizer = ScalarQuantizer.fit(known, token_sensitivity(model, known[: 8 * batch_size], generator, batch_size))
    sums: Sums = defaultdict(lambda: np.zeros(3))
    for batch in images.batches(model.image_size, batch_size, subject.name):
        pixels = batch.pixels.to(subject.device)
        values = model.encode(pixels, model.max_tokens).values
        for size in options.fineness:
            levels = quantizer.levels(values, size)
            rounded, bits = quantizer.values(levels, size), quantizer.bits(levels, size)
            for k in lengths:
                cut = Tokens.cut(rounded, torch.full((len(rounded),), k, device=subject.device))
                spent = bits[:, :k].sum(1) + np.log2(model.max_tokens)
                quality = psnr(model.decode(cut), pixels).sum()
                sums[subject.name, f"{k} tokens", size] += [len(rounded), float(spent.sum()), float(quality)]
    return _rows(sums, model.image_size)


def token_sensitivity(
    model: Dove, values: Float[Tensor, "M K D"], generator: torch.Generator, batch_size: int = 16
) -> Float[Tensor, "K D"]:
    """Estimate how far the picture moves, in root summed squared pixels ([-1, 1]), when a number of a token moves by one.

    The square is the mean over directions v of (d v.x / d token)^2 for v of independent signs, averaged over images.
    """
    total, count = torch.zeros_like(values[0]), 0
    for batch in torch.split(values, batch_size):
        part = batch.clone().requires_grad_(True)
        with torch.enable_grad():
            lengths = torch.full((len(part),), part.shape[1], device=part.device)
            picture = model.reconstruct_from(Tokens(part, lengths))
            for _ in range(PROBES):
                signs = torch.randint(0, 2, picture.shape, generator=generator).to(picture) * 2 - 1
                (gradient,) = torch.autograd.grad((signs * picture).sum(), part, retain_graph=True)
                total += gradient.square().sum(0)
                count += len(part)
    return (total / count).sqrt()


def rate_of_files(images: Images, image_size: int, qualities: Sequence[int], batch_size: int) -> list[dict[str, Any]]:
    """Measure JPEG (with and without its header, which outweighs so small a picture) and WebP by quality setting."""
    processor = ImageProcessor(image_size)
    sums: Sums = defaultdict(lambda: np.zeros(3))
    for batch in images.batches(image_size, batch_size, "JPEG and WebP"):
        for picture, pixels in zip(processor.to_pil(batch.pixels), batch.pixels, strict=True):
            for quality in qualities:
                for kind, options in (("JPEG", {"optimize": True}), ("WEBP", {"method": 6})):
                    file = io.BytesIO()
                    picture.save(file, kind, quality=quality, **options)
                    reached = float(psnr(pil_to_tensor(Image.open(file).convert("RGB"))[None], pixels[None]))
                    sizes = {kind: len(file.getvalue())}
                    if kind == "JPEG":
                        sizes["JPEG without header"] = sizes[kind] - file.getvalue().index(START_OF_SCAN)
                    for name, size in sizes.items():
                        sums[name, "", quality] += [1, 8 * size, reached]
    return _rows(sums, image_size)


def _rows(sums: Sums, image_size: int) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "num_tokens": tokens,
            "setting": setting,
            "bytes_per_image": float(bits / count / 8),
            "bits_per_pixel": float(bits / count / image_size**2),
            "psnr": float(quality / count),
        }
        for (model, tokens, setting), (count, bits, quality) in sums.items()
    ]


def plot_rate(rows: Sequence[dict[str, Any]]) -> bytes:
    """Plot PSNR against bytes per image: a line for each file format and for each number of tokens of each model."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name = f"{row['model']}, {row['num_tokens']}" if row["num_tokens"] else row["model"]
        lines.setdefault(name, []).append((row["bytes_per_image"], row["psnr"]))
    with style():
        figure, (panel,) = panels(1, 1, width=6.4, height=4.4)
        for name, look in looks(lines).items():
            dashes = {} if "," in name else {"linestyle": "--"}
            panel.plot(
                *zip(*sorted(lines[name]), strict=True), **look | dashes, label=name.replace(", 1 tokens", ", 1 token")
            )
        sizes = [row["bytes_per_image"] for row in rows]
        ticks = [2**power for power in range(4, 14) if min(sizes) / 1.3 <= 2**power <= 1.3 * max(sizes)]
        token_axis(panel, ticks, "bytes per image")
        panel.set_ylabel("PSNR (dB)")
        panel.legend()
        return to_png(figure)
