"""Images with queries and the boxes that answer them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the image it belongs to."""


@dataclass(frozen=True)
class Ask:
    """A query about an image, with its answering boxes; none where the image has nothing of the kind."""

    query: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class QueryExample:
    """An image, in [-1, 1], and what is asked about it, at least one query."""

    image: Float[Tensor, "3 S S"]
    asks: tuple[Ask, ...]


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """B images and Q queries with ragged boxes.

    Attributes:
        images: in [-1, 1].
        queries: the words, image by image.
        image_of: which image a query is about.
        boxes: x, y, width, height in pixels, query by query.
        query_of: which query a box answers.
    """

    images: Float[Tensor, "B 3 S S"]
    queries: tuple[str, ...]
    image_of: Int[Tensor, " Q"]
    boxes: Float[Tensor, "M 4"]
    query_of: Int[Tensor, " M"]

    @classmethod
    def collate(cls, examples: Sequence[QueryExample]) -> "QueryBatch":
        """A batch of examples."""
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
        """The same on a device."""
        moved = (tensor.to(device) for tensor in (self.image_of, self.boxes, self.query_of))
        return QueryBatch(self.images.to(device), self.queries, *moved)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)
