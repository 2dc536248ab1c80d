"""Images with queries and the boxes that answer them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the image it belongs to


@dataclass(frozen=True)
class Ask:
    """A query about an image with the boxes that answer it; no boxes where the image has nothing of the kind."""

    query: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class QueryExample:
    """An image, in [-1, 1], with at least one query about it."""

    image: Float[Tensor, "3 S S"]
    asks: tuple[Ask, ...]


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """B images and Q queries with ragged boxes.

    Attributes:
        images: (B, 3, S, S) in [-1, 1].
        queries: texts of the queries, image by image.
        image_of: (Q,) index of each query's image.
        boxes: (M, 4) x, y, width, height in pixels, query by query.
        query_of: (M,) index of each box's query.
    """

    images: Float[Tensor, "B 3 S S"]
    queries: tuple[str, ...]
    image_of: Int[Tensor, " Q"]
    boxes: Float[Tensor, "M 4"]
    query_of: Int[Tensor, " M"]

    @classmethod
    def collate(cls, examples: Sequence[QueryExample]) -> "QueryBatch":
        """Collate examples into a batch."""
        asks = [(row, ask) for row, example in enumerate(examples) for ask in example.asks]
        boxes = [(number, box) for number, (_, ask) in enumerate(asks) for box in ask.boxes]
        return cls(
            images=torch.stack([example.image for example in examples]),
            queries=tuple(ask.query for _, ask in asks),
            image_of=torch.tensor([row for row, _ in asks]),
            boxes=torch.tensor([box for _, box in boxes], dtype=torch.float32).view(-1, 4),
            query_of=torch.tensor([number for number, _ in boxes], dtype=torch.long),
        )

    def to(self, device: torch.device) -> "QueryBatch":
        """Move the tensors to a device."""
        moved = (tensor.to(device) for tensor in (self.image_of, self.boxes, self.query_of))
        return QueryBatch(self.images.to(device), self.queries, *moved)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)
