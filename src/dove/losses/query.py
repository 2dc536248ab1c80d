"""Eq. 5 to 7: losses inside and outside of the boxes that answer a query, per sample and for ragged boxes."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dove.losses.length import eos_loss

RegionLoss = Callable[[Tensor, Tensor], Tensor]
"""Reconstructions and images (M, 3, S, S) in, Eq. 2 of each, (M,), out."""


def enlarge_boxes(
    images: Float[Tensor, "B 3 S S"], boxes: Float[Tensor, "M 4"], image_of: Int[Tensor, " M"]
) -> Float[Tensor, "M 3 S S"]:
    """Scale every box to the full size by bilinear interpolation between the pixels inside it (Eq. 5's upsampling).

    Pixel centres are sampled as ``interpolate(..., align_corners=False)`` does on the cut-out box: pixels outside of it have
    no influence, and a box of a single pixel becomes a plain colour.

    Args:
        images: in any range.
        boxes: x, y, width, height in whole pixels, inside the image.
        image_of: index of each box's image.

    Returns:
        The boxes in float32.
    """
    side = images.shape[-1]
    centres = (torch.arange(side, device=images.device) + 0.5) / side
    weights = []
    for axis in (1, 0):  # rows, then columns
        start, size = boxes[:, axis, None], boxes[:, axis + 2, None]
        place = (start + centres * size - 0.5).clamp(min=start, max=start + size - 1)  # (M, S), in pixels
        pixels = torch.arange(side, device=images.device)
        weights.append((1 - (place[..., None] - pixels).abs()).clamp(min=0))  # (M, S, S): hat functions
    rows, columns = weights
    with torch.autocast(images.device.type, enabled=False):
        # One side after the other: torch.einsum would take both sides' weights first, S^4 numbers for a box.
        return rows[:, None] @ images[image_of].float() @ columns[:, None].mT


def whole_pixels(boxes: Float[Tensor, "M 4"], side: int) -> Float[Tensor, "M 4"]:
    """Round boxes outward to whole pixels inside an image of ``side`` pixels, at least one pixel each."""
    low = boxes[:, :2].floor().clamp(0, side - 1)
    high = (boxes[:, :2] + boxes[:, 2:]).ceil().clamp(max=side)
    return torch.cat([low, (high - low).clamp(min=1)], dim=1)


def inside_boxes(
    boxes: Float[Tensor, "M 4"], image_of: Int[Tensor, " M"], count: int, side: int
) -> Bool[Tensor, "B S S"]:
    """Mark the pixels in any of the boxes, rounded to whole pixels, of each of ``count`` images; none without a box."""
    pixels = torch.arange(side, device=boxes.device)
    x, y, width, height = (column[:, None] for column in whole_pixels(boxes, side).unbind(1))
    columns = (pixels >= x) & (pixels < x + width)
    rows = (pixels >= y) & (pixels < y + height)
    union = torch.zeros(count, side, side, device=boxes.device)
    union.index_add_(0, image_of, (rows[:, :, None] & columns[:, None, :]).float())
    return union > 0


def masked_squared_error(
    reconstruction: Float[Tensor, "B 3 S S"], images: Float[Tensor, "B 3 S S"], mask: Bool[Tensor, "B S S"]
) -> Float[Tensor, " B"]:
    """Compute the mean squared error over the pixels of a mask; 0 where it is empty."""
    error = (reconstruction.float() - images.float()).square().mean(1) * mask
    return error.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)


def mean_by_sample(values: Float[Tensor, " M"], sample_of: Int[Tensor, " M"], count: int) -> Float[Tensor, " B"]:
    """Average each sample's values; 0 for a sample without."""
    totals = values.new_zeros(count).index_add(0, sample_of, values)
    return totals / values.new_zeros(count).index_add(0, sample_of, torch.ones_like(values)).clamp(min=1)


def relevant_loss(
    reconstruction: Float[Tensor, "B 3 S S"],
    images: Float[Tensor, "B 3 S S"],
    boxes: Float[Tensor, "M 4"],
    image_of: Int[Tensor, " M"],
    loss: RegionLoss,
) -> Float[Tensor, " B"]:
    """Compute the first part of Eq. 7: the mean over an image's boxes of L_rel of Eq. 5, the loss of the enlarged box.

    Args:
        reconstruction: in [-1, 1]; gradients flow into it.
        images: in [-1, 1].
        boxes: x, y, width, height in pixels, inside the image.
        image_of: index of each box's image.
        loss: Eq. 2 per sample.
    """
    boxes = whole_pixels(boxes, images.shape[-1])
    pairs = (enlarge_boxes(pictures, boxes, image_of) for pictures in (reconstruction, images))
    return mean_by_sample(loss(*pairs), image_of, len(images))


def irrelevant_loss(
    reconstruction: Float[Tensor, "B 3 S S"],
    images: Float[Tensor, "B 3 S S"],
    boxes: Float[Tensor, "M 4"],
    image_of: Int[Tensor, " M"],
) -> Float[Tensor, " B"]:
    """Compute Eq. 6: the mean squared error outside of all boxes; 0 where they cover the image."""
    inside = inside_boxes(boxes, image_of, len(images), images.shape[-1])
    return masked_squared_error(reconstruction, images, ~inside)


def early_end_penalty(
    probability: Float[Tensor, "B K"], lengths: Int[Tensor, " B"], irrelevant: Float[Tensor, " B"], threshold: float
) -> Float[Tensor, " B"]:
    """Compute L_pen of section 2.3: ``-1/(m-1) * sum over i < m of p(i)`` where L_irr is below its threshold, else 0.

    Tokens were spent on detail outside of the query's boxes there, so an earlier EOS is wanted.
    """
    below = irrelevant.detach() < threshold
    return torch.where(below, eos_loss(probability, lengths, torch.zeros_like(irrelevant), 1.0), 0.0)
