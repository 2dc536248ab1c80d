"""The rule by which the reference computations got their weights and images, so that neither has to be stored."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent


def fill(name: str, shape: Sequence[int]) -> Tensor:
    """The weights that belong to a published parameter name and shape.

    Standard normal numbers, seeded by the name: times 0.02 around 1 (weights) or 0 (all else) for vectors, scaled to
    unit gain for everything with more dimensions.
    """
    drawn = np.random.default_rng(crc32(name.encode())).standard_normal(tuple(shape), dtype=np.float32)
    if len(shape) < 2:
        centre = 1 if name.endswith("weight") else 0
        return torch.from_numpy(centre + np.float32(0.02) * drawn)
    drawn /= np.sqrt(int(np.prod(shape[1:]))).astype(np.float32)
    return torch.from_numpy(drawn)


def filled_weights(layout: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights for all parameters of a published layout."""
    return {name: fill(name, shape) for name, shape in layout.items()}


def reference_images() -> Tensor:
    """The two smooth images (2, 3, 256, 256), in [0, 1], that the references were computed from."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32))
    return torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic", align_corners=False).clamp(0, 1)


def references(family: str, model: str) -> dict[str, Tensor]:
    """The recorded outputs of one model, by their names without the model's."""
    stored = load_file(FOLDER / family / "outputs.safetensors")
    return {name.removeprefix(f"{model}."): value for name, value in stored.items() if name.startswith(f"{model}.")}


def layouts(family: str) -> dict[str, Any]:
    """Parameter names, shapes and counts of the family's models."""
    return json.loads((FOLDER / family / "layout.json").read_text())


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return ((ours - reference).norm() / reference.norm()).item()


def coarse(pixels: Tensor) -> Tensor:
    """Means of 8 x 8 blocks, which is how reference images are stored."""
    return torch.nn.functional.avg_pool2d(pixels, 8)
