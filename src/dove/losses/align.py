"""Alignment of predictions with the features of a frozen network, as cosine distances per sample."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize_map(features: Float[Tensor, "B F h w"], grid: tuple[int, int]) -> Float[Tensor, "B N F"]:
    """Resize a feature map to a grid and lay its positions out row by row.

    Bilinear between positions where the grid is finer, a weighted average of what each cell covers where it is coarser.

    Args:
        features: (B, F, h, w) of a frozen network.
        grid: Rows and columns; N is their product.
    """
    if features.shape[-2:] != grid:
        features = F.interpolate(features.float(), grid, mode="bilinear", align_corners=False, antialias=True)
    return features.flatten(2).transpose(1, 2)


def grid_alignment(
    predicted: Float[Tensor, "B N F"], features: Float[Tensor, "B F h w"], grid: tuple[int, int]
) -> Float[Tensor, " B"]:
    """Compute the cosine distance between features predicted at grid positions and a map: mean over n of 1 - cos(p_n, f_n).

    Args:
        predicted: (B, N, F) row by row; gradients flow into it.
        features: (B, F, h, w) of a frozen network, resized to the grid; no gradient flows into it.
        grid: Rows and columns of the N positions.

    Returns:
        (B,) in float32, in [0, 2].
    """
    return _cosine_distance(predicted, resize_map(features.detach(), grid)).mean(dim=1)


def pooled_alignment(predicted: Float[Tensor, "B F"], features: Float[Tensor, "B F"]) -> Float[Tensor, " B"]:
    """Compute the cosine distance between a predicted feature vector and a pooled one, ``1 - cos(p, f)``.

    Args:
        predicted: (B, F); gradients flow into it.
        features: (B, F) of `dove.frozen.network.FrozenNetwork.pooled`; no gradient flows into it.

    Returns:
        (B,) in float32, in [0, 2].
    """
    return _cosine_distance(predicted, features.detach())


def _cosine_distance(predicted: Float[Tensor, "*S F"], features: Float[Tensor, "*S F"]) -> Float[Tensor, "*S"]:
    return 1 - F.cosine_similarity(predicted.float(), features.float(), dim=-1)
