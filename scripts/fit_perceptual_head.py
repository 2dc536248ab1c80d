"""Gives a checkpoint that predicts PSNR a predicted perceptual distance, too, which `lpips<=x` needs.

    python scripts/fit_perceptual_head.py --model dove-tiny --data data/tiny-imagenet-train-0.parquet \\
        --perceptual-weights squeezenet1_0.safetensors --output runs/with-distance

A second output of the quality head is fitted by least squares to the logarithm of the distances that random prefixes of
training images reach. Nothing else is touched: tokens, images and predicted PSNR stay what they are, bit for bit.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dove.data.images import open_images
from dove.data.loader import ImageLoader
from dove.losses.perceptual import PerceptualDistance, make_perceptual
from dove.models.eos import QualityEosHead
from dove.processor import ImageProcessor
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.objectives import LEAST_DISTANCE


def random_lengths(count: int, capacity: int, draws: torch.Generator) -> Tensor:
    """Half of them log-uniform, half uniform, from 1 to the capacity."""
    uniform = torch.rand(count, generator=draws)
    short = torch.rand(count, generator=draws) < 0.5
    return torch.where(short, (capacity + 1) ** uniform, 1 + capacity * uniform).long().clamp(1, capacity)


@torch.no_grad()
def samples(
    model: Dove, network: PerceptualDistance, batches: ImageLoader, prefixes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Hidden states (M, H) at random lengths, and the decimal logarithm (M,) of the distance that those tokens reach."""
    draws = torch.Generator().manual_seed(0)
    for batch in batches:
        latents = model.latents(batch.pixels)
        capacity = model.config.max_tokens
        hidden = model.generator.hidden_states(latents, capacity)[:, latents.shape[1] :]
        values = model.generate(latents).values
        for _ in range(prefixes):
            lengths = random_lengths(len(batch), capacity, draws)
            rebuilt = model.reconstruct_from(Tokens.cut(values, lengths).values)
            distance = network(rebuilt, batch.pixels).clamp(min=LEAST_DISTANCE)
            yield hidden[torch.arange(len(batch)), lengths - 1], distance.log10()


def fit(hidden: Tensor, targets: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights (H,) and bias of the linear map that comes closest in mean square, with a little shrinkage."""
    centre, level = hidden.mean(0), targets.mean()
    states = hidden - centre
    moments = states.T @ states / len(states)
    moments += ridge * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    weights = torch.linalg.solve(moments, states.T @ (targets - level) / len(states))
    return weights, level - centre @ weights


@torch.no_grad()
def with_distance(model: Dove, weights: Tensor, bias: Tensor) -> Dove:
    """The same model with the second output."""
    fitted = Dove(replace(model.config, quality_perceptual="squeezenet"))
    state = model.state_dict()
    old, new = model.generator.eos_head, fitted.generator.eos_head
    assert isinstance(old, QualityEosHead)
    assert isinstance(new, QualityEosHead)
    name = "generator.eos_head.projection"
    state[f"{name}.weight"] = torch.stack([old.projection.weight[0], weights.float()])
    state[f"{name}.bias"] = torch.stack([old.projection.bias[0], (bias - new.distance_centre).float()])
    fitted.load_state_dict(state)
    return fitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dove-tiny")
    parser.add_argument("--data", nargs="+", required=True, help="training images")
    parser.add_argument("--perceptual-weights", type=Path, required=True, help="SqueezeNet 1.0")
    parser.add_argument("--limit", type=int, default=3000, help="images")
    parser.add_argument("--prefixes", type=int, default=4, help="of each image")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    model = Dove.from_pretrained(options.model).eval()
    if type(model) is not Dove or model.config.eos_head != "quality" or model.config.quality_perceptual != "none":
        raise SystemExit(f"{options.model} is no model without queries that predicts PSNR alone")
    network = make_perceptual("squeezenet", options.perceptual_weights).to(memory_format=torch.channels_last)
    images = open_images(options.data, limit=options.limit)
    batches = ImageLoader(images, ImageProcessor(model.image_size), batch_size=64)
    parts = list(samples(model, network, batches, options.prefixes))
    hidden, targets = (torch.cat(column).double() for column in zip(*parts, strict=True))
    held = len(hidden) // 10
    weights, bias = fit(hidden[held:], targets[held:])
    error = hidden[:held] @ weights + bias - targets[:held]
    typical, correlation = (
        error.abs().mean(),
        torch.corrcoef(torch.stack([targets[:held] + error, targets[:held]]))[0, 1],
    )
    print(f"held-out tenth: off by {10 ** float(typical) - 1:.1%} on average, correlation {float(correlation):.3f}")
    nn.Module.to(with_distance(model, weights, bias), torch.float16).save_pretrained(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
