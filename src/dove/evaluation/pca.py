"""Figure 8: the first three principal components of features as the colours of a segmentation."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from dove.errors import UserError
from dove.evaluation.common import Images, Subject
from dove.photos.picture import Cell
from dove.photos.tiling import Tiling
from dove.processor import ImageProcessor
from dove.protocol import Layered

COMPONENTS = 3  # Number of components: one each for red, green and blue
OUTLIERS = 1.0
"""Percent of the values at either end that get the full or no colour, so that single cells don't pale all others."""
LATENTS = "latents"
MOST_PIXELS = 256  # Largest side of an image in the picture, in pixels


def collect_features(
    subject: Subject, images: Images, batch_size: int, side: int | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Collect pixels (B, 3, side, side) and, by source, features (B, cells, width) of all readable images, on the CPU.

    Sources are "latents" of the VQGAN or the patches, and "layer 1", ... of the generator. Images larger than the model's are
    read in tiles that overlap by three quarters; where they do, features are mixed.
    """
    model = subject.tokenizer
    if not isinstance(model, Layered):
        raise UserError(f"{subject.name} has no hidden layers over a grid; pass a DOVE, a TiTok or an ALIT")
    size = subject.tokenizer.image_size
    side = side or size
    if side % size:
        raise UserError(f"--side {side} is no multiple of {size}, the side of {subject.name}'s images")
    pixels: list[Tensor] = []
    features: dict[str, list[Tensor]] = {}
    for batch in images.batches(side, batch_size, f"{subject.name}: features"):
        pixels.append(batch.pixels)
        for picture in batch.pixels:
            for source, found in _tiled_features(subject, model, picture, batch_size).items():
                features.setdefault(source, []).append(found)
    return torch.cat(pixels), {source: torch.stack(parts) for source, parts in features.items()}


def _tiled_features(
    subject: Subject, model: Layered, picture: Float[Tensor, "3 H H"], batch_size: int
) -> dict[str, Float[Tensor, "M F"]]:
    """Compute features by source at the M cells of a picture, from its tiles."""
    cells, size = model.grid_size, subject.tokenizer.image_size
    pixel, step = size // cells, cells // 4 if cells % 4 == 0 else 1
    overlap, side = cells - step, picture.shape[-1]
    tiling = Tiling(height=side, width=side, tile=size, overlap=overlap * pixel)
    found: dict[str, list[Tensor]] = {}
    for tiles in torch.from_numpy(tiling.split(picture.numpy())).split(batch_size):
        inputs = tiles.to(subject.device)
        found.setdefault(LATENTS, []).append(model.latents(inputs).cpu())
        for number, layer in enumerate(model.hidden_layers(inputs), 1):
            found.setdefault(f"layer {number}", []).append(layer.cpu())
    grid = Tiling(height=side // pixel, width=side // pixel, tile=cells, overlap=overlap)
    joined = {}
    for source, parts in found.items():
        squares = torch.cat(parts).mT.unflatten(-1, (cells, cells))
        joined[source] = torch.from_numpy(grid.join(squares.numpy())).flatten(1).mT
    return joined


def segment(source: str, features: Float[Tensor, "B N F"]) -> tuple[Float[np.ndarray, "B h w 3"], list[float]]:
    """Compute principal components of all positions of all images, as colours in [0, 1], and their shares of the variance.

    Each component is stretched to [0, 1] between its first and its last percentile over all images, so that a colour
    means the same in each of them.
    """
    flat = features.flatten(0, 1).double().numpy()
    if not np.isfinite(flat).all():
        raise UserError(f"{source}: some features are not finite; check the checkpoint")
    if np.ptp(flat, axis=0).max() == 0:
        raise UserError(f"{source}: the features are the same everywhere, so they have no components")
    pca = PCA(COMPONENTS, svd_solver="covariance_eigh")
    components = pca.fit_transform(flat)
    low, high = np.percentile(components, [OUTLIERS, 100 - OUTLIERS], axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, np.finfo(np.float64).tiny), 0, 1)
    side = round(features.shape[1] ** 0.5)
    return colours.reshape(len(features), side, side, 3), pca.explained_variance_ratio_.tolist()


def upsample(colours: Float[np.ndarray, "h w 3"], size: int) -> Image.Image:
    """Enlarge colours in [0, 1] to a picture of ``size`` pixels a side."""
    return Image.fromarray(np.round(colours * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def evaluate_pca(
    subject: Subject, images: Images, *, batch_size: int, shown: int, side: int | None = None
) -> tuple[list[dict[str, Any]], list[list[Cell]]]:
    """Compute one row of numbers for each source of features, and the picture's rows."""
    pixels, features = collect_features(subject, images, batch_size, side)
    segmented = {source: segment(source, values) for source, values in features.items()}
    rows = [
        {
            "model": subject.name,
            "source": source,
            "width": features[source].shape[-1],
            **{f"explained_variance_{number}": share for number, share in enumerate(shares, 1)},
            "explained_variance": sum(shares),
        }
        for source, (_, shares) in segmented.items()
    ]
    side = min(pixels.shape[-1], MOST_PIXELS)
    originals = [picture.resize((side, side)) for picture in ImageProcessor(pixels.shape[-1]).to_pil(pixels[:shown])]
    cells = [
        [
            Cell(original, "image"),
            *(Cell(upsample(found[row], side), source) for source, (found, _) in segmented.items()),
        ]
        for row, original in enumerate(originals)
    ]
    return rows, cells
