"""Conversations and the tokens of their images as one batch of positions, each image as long as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dove.errors import UserError
from dove.vlm.text import IMAGE_ID, Encoded

NOT_LEARNED = -100  # Label of a position that the loss leaves out (what PyTorch's cross entropy ignores)
PAD_SEGMENT = -1


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of a batch; P is the longest row, with images at their full lengths.

    Attributes:
        ids: word ids, ``IMAGE_ID`` at every position of an image, 0 for padding.
        positions: counted from 0 in every row; questions that don't know each other all go on after what they share.
        segments: 0 for what is shared, 1, 2, ... for such questions, -1 for padding.
        labels: the word that a position has to predict, ``NOT_LEARNED`` where none.
    """

    ids: Int[Tensor, "B P"]
    positions: Int[Tensor, "B P"]
    segments: Int[Tensor, "B P"]
    labels: Int[Tensor, "B P"]

    @property
    def image_positions(self) -> Bool[Tensor, "B P"]:
        """True where an image token goes."""
        return self.ids == IMAGE_ID

    @property
    def visible(self) -> Bool[Tensor, "B 1 P P"]:
        """True where a row's position may see a column's: not later, and shared or of its own question.

        Every position sees itself, so that a padded one divides by no zero; nothing else sees padding.
        """
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        allowed = (((key == query) | (key == 0)) & (key != PAD_SEGMENT)).tril()
        return (allowed | torch.eye(allowed.shape[1], dtype=torch.bool, device=allowed.device))[:, None]

    def to(self, device: torch.device) -> "Layout":
        """The same on another device."""
        return Layout(*(getattr(self, name).to(device) for name in ("ids", "positions", "segments", "labels")))


def lay_out(
    conversations: Sequence[Encoded],
    lengths: Sequence[int],
    *,
    pad_left: bool = False,
    keys: Sequence[str] | None = None,
    context: int | None = None,
) -> Layout:
    """Give every image of every conversation as many positions as it has tokens.

    Args:
        conversations: with their images in order.
        lengths: tokens of the images, in the order of the conversations and of the images in them.
        pad_left: pad in front, as generation needs it.
        keys: names of the conversations, for messages.
        context: positions that the language model has; None for no limit.
    """
    expected = sum(conversation.images for conversation in conversations)
    if expected != len(lengths):
        raise UserError(f"the conversations speak of {expected} images and there are {len(lengths)}")
    remaining = iter(lengths)
    rows = [_expand(conversation, remaining) for conversation in conversations]
    for number, (_, positions, *_) in enumerate(rows):
        needed = int(positions.max()) + 1
        if context is not None and needed > context:
            name = keys[number] if keys else f"conversation {number}"
            raise UserError(
                f"{name}: {needed} positions with its images, and the language model has {context}; "
                "ask for fewer image tokens or shorten the text"
            )
    side = "left" if pad_left else "right"
    fillers = (0, 0, PAD_SEGMENT, NOT_LEARNED)
    return Layout(
        *(
            pad_sequence(list(column), batch_first=True, padding_value=filler, padding_side=side)
            for column, filler in zip(zip(*rows, strict=True), fillers, strict=True)
        )
    )


def _expand(conversation: Encoded, lengths: Iterator[int]) -> tuple[Int[Tensor, " p"], ...]:
    """Ids, positions, segments and labels of one conversation."""
    counts = torch.tensor([next(lengths) if word == IMAGE_ID else 1 for word in conversation.ids])
    ids, learned, segments = (
        torch.tensor(part).repeat_interleave(counts)
        for part in (conversation.ids, conversation.learned, conversation.segments)
    )
    places = torch.arange(len(ids))
    begins = segments.diff(prepend=segments.new_zeros(1)) != 0
    first = (places * begins).cummax(0).values  # where its question begins
    positions = torch.where(segments > 0, (segments == 0).sum() + places - first, places)
    # Position i predicts word i + 1, which is never the first word of another question.
    labels = ids.where(learned, NOT_LEARNED).roll(-1)
    labels[-1] = NOT_LEARNED
    return ids, positions, segments, labels
