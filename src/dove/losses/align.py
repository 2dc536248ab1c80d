"""Alignment of predictions with the features of a frozen network, as cosine distances per sample, (B,) in [0, 2]."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize_map(features: Float[Tensor, "B F h w"], grid: tuple[int, int]) -> Float[Tensor, "B N F"]:
    """Resize a feature map to ``grid``, rows and columns, and lay its N positions out row by row.

    Bilinear between positions where the grid is finer, a weighted average of what each cell covers where it is coarser.
    """
    if features.shape[-2:] != grid:
        features = F.interpolate(features.float(), grid, mode="bilinear", align_corners=False, antialias=True)
    return features.flatten(2).transpose(1, 2)


def grid_alignment(
    predicted: Float[Tensor, "B N F"], features: Float[Tensor, "B F h w"], grid: tuple[int, int]
) -> Float[Tensor, " B"]:
    """Compute the mean over grid positions n of ``1 - cos(p_n, f_n)``, with the map resized to the grid.

    Gradients flow into what is predicted, row by row, alone.
    """
    return pooled_alignment(predicted, resize_map(features, grid)).mean(dim=1)


def pooled_alignment(predicted: Float[Tensor, "*S F"], features: Float[Tensor, "*S F"]) -> Float[Tensor, "*S"]:
    """Compute ``1 - cos(p, f)``, in float32; gradients flow into the predicted vectors alone."""
    return 1 - F.cosine_similarity(predicted.float(), features.detach().float(), dim=-1)
