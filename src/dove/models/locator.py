"""From latents and words to a rectangle of grid cells, for all images at once.

A locator gives every cell the log-odds that the query asks for it. Under independent cells the log-likelihood of a
rectangle is, up to a constant, the sum of its cells' log-odds, so the probabilities of all rectangles are one matrix product
away. The empty one, with a sum of 0, stands for "nothing of the kind": the tokens then describe the whole picture.

Describing the wrong place costs more than describing no place, and a rectangle that is a cell too large is nearly right.
So the choice is the rectangle of the largest expected overlap, if that is large enough to pay.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dove.query.config import QDoveConfig, RegionConfig

EMPTY = 0
"""Number of the rectangle without cells."""


def all_rectangles(side: int) -> Int[Tensor, "R 4"]:
    """Every rectangle of a ``side x side`` grid as upper, left, lower, right (exclusive); number 0 is the empty one."""
    spans = [(start, end) for start in range(side) for end in range(start + 1, side + 1)]
    rectangles = [(upper, left, lower, right) for upper, lower in spans for left, right in spans]
    return torch.tensor([(0, 0, 0, 0), *rectangles])


def cell_masks(rectangles: Int[Tensor, "R 4"], side: int) -> Bool[Tensor, "R N"]:
    """True for the cells (row-major) inside each rectangle."""
    cells = torch.arange(side, device=rectangles.device)
    upper, left, lower, right = rectangles[:, :, None].unbind(1)
    rows = (cells >= upper) & (cells < lower)
    columns = (cells >= left) & (cells < right)
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def rectangle_of_boxes(
    boxes: Float[Tensor, "M 4"], query_of: Int[Tensor, " M"], queries: int, cell: int, side: int
) -> Int[Tensor, "Q 4"]:
    """The least rectangle of cells around each query's boxes (pixels); queries without boxes get the empty one.

    A cell that a box enters by a single pixel does not count.
    """
    start = torch.full((queries, 2), side)
    end = torch.zeros(queries, 2, dtype=torch.long)
    low = ((boxes[:, [1, 0]] + 1) / cell).floor().long().clamp(0, side - 1)
    high = ((boxes[:, [1, 0]] + boxes[:, [3, 2]] - 1) / cell).ceil().long().clamp(1, side)
    index = query_of[:, None].expand(-1, 2).to(low.device)
    start = start.to(low.device).scatter_reduce(0, index, low, "amin")
    end = end.to(low.device).scatter_reduce(0, index, torch.maximum(high, low + 1), "amax")
    return torch.where((end > start).all(1, keepdim=True), torch.cat([start, end], 1), 0)


class Locator(nn.Module):
    """Convolutions over the latents, unfolded to twice the grid's resolution, matched with the query's words.

    Args:
        config: sizes.
    """

    rectangles: Tensor
    masks: Tensor
    overlaps: Tensor

    def __init__(self, config: QDoveConfig, region: RegionConfig):
        super().__init__()
        self.side, self.least_overlap = config.vqgan.grid_size, region.least_overlap
        fine, middle, coarse = region.channels
        self.unfold = nn.Linear(config.vqgan.channels, 4 * fine)
        self.looks = nn.Sequential(
            _convolution(fine, middle),
            _Residual(middle),
            nn.MaxPool2d(2),
            _convolution(middle, coarse),
            _Residual(coarse),
            nn.Conv2d(coarse, coarse, 1),
        )
        width = config.generator.hidden_size
        self.attention = nn.Linear(width, 1)
        self.meaning = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, coarse + 1)
        )
        self.register_buffer("rectangles", all_rectangles(self.side), persistent=False)
        self.register_buffer("masks", cell_masks(self.rectangles, self.side).float(), persistent=False)
        self.register_buffer("overlaps", _overlaps(self.masks), persistent=False)

    def forward(
        self,
        latents: Float[Tensor, "B N C"],
        words: Float[Tensor, "Q T H"],
        present: Bool[Tensor, "Q T"],
        image_of: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q N"]:
        """Log-odds of every cell for every query.

        Args:
            latents: of the images.
            words: embedded queries.
            present: which of their words are there, at least one each.
            image_of: which image a query is about.
        """
        looks = self.features(latents)[image_of]
        weights = self.attention(words)[..., 0].masked_fill(~present, -1e4).softmax(1)
        meaning = self.meaning((weights[..., None] * words).sum(1))
        return (looks @ meaning[:, 1:, None])[..., 0].float() / math.sqrt(looks.shape[-1]) + meaning[:, :1].float()

    def features(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B N F"]:
        """What is seen in each cell."""
        grid = self.unfold(latents).transpose(1, 2).unflatten(2, (self.side, self.side))
        pixels = nn.functional.pixel_shuffle(grid, 2).contiguous(memory_format=torch.channels_last)
        return self.looks(pixels).flatten(2).transpose(1, 2)

    def rectangle_scores(self, logits: Float[Tensor, "Q N"]) -> Float[Tensor, "Q R"]:
        """Log-likelihood of every rectangle, up to a constant; of the empty one 0."""
        return logits @ self.masks.T

    def best_rectangle(self, logits: Float[Tensor, "Q N"]) -> Int[Tensor, "Q 4"]:
        """The rectangle of the largest expected intersection over union; the empty one where that is too small."""
        expected = self.rectangle_scores(logits).softmax(1) @ self.overlaps
        overlap, number = expected.max(1)
        return self.rectangles[torch.where(overlap >= self.least_overlap, number, EMPTY)]

    def number_of(self, rectangles: Int[Tensor, "Q 4"]) -> Int[Tensor, " Q"]:
        """Where given rectangles stand in the list of all."""
        return (rectangles[:, None] == self.rectangles).all(2).int().argmax(1)


def _overlaps(masks: Float[Tensor, "R N"]) -> Float[Tensor, "R R"]:
    """Intersection over union of all pairs of rectangles; 0 with the empty one."""
    shared, sizes = masks @ masks.T, masks.sum(1)
    return shared / (sizes[:, None] + sizes - shared).clamp(min=1)


def _convolution(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.inner = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        return x + self.inner(x)
