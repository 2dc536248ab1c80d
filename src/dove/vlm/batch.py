"""Conversations and the tokens of their images as one batch of positions, each image as long as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dove.errors import UserError
from dove.vlm.text import IMAGE_ID, Encoded

NOT_LEARNED = -100  # Label of a position that the loss leaves out (what PyTorch's cross entropy ignores)
PAD_ID = -2


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of a batch; P is the longest row, with images at their full lengths.

    Attributes:
        ids: word ids, ``IMAGE_ID`` at every position of an image, ``PAD_ID`` where a row is padded.
        labels: the word that a position has to predict, ``NOT_LEARNED`` where none.
    """

    ids: Int[Tensor, "B P"]
    labels: Int[Tensor, "B P"]

    @property
    def image_positions(self) -> Bool[Tensor, "B P"]:
        """True where an image token goes."""
        return self.ids == IMAGE_ID

    @property
    def attended(self) -> Bool[Tensor, "B P"]:
        """False where a row is padded."""
        return self.ids != PAD_ID

    def to(self, device: torch.device) -> "Layout":
        """The same on another device."""
        return Layout(self.ids.to(device), self.labels.to(device))


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

    Raises:
        UserError: naming a conversation that is longer than the context, or for another number of images than of
            lengths.
    """
    expected = sum(conversation.images for conversation in conversations)
    if expected != len(lengths):
        raise UserError(f"the conversations speak of {expected} images and there are {len(lengths)}")
    remaining = iter(lengths)
    rows = [_expand(conversation, remaining) for conversation in conversations]
    for number, (needed, _) in enumerate(rows):
        if context is not None and len(needed) > context:
            name = keys[number] if keys else f"conversation {number}"
            raise UserError(
                f"{name}: {len(needed)} positions with its images, and the language model has {context}; "
                "ask for fewer image tokens or shorten the text"
            )
    pad = partial(pad_sequence, batch_first=True, padding_side="left" if pad_left else "right")
    ids, labels = (list(column) for column in zip(*rows, strict=True))
    return Layout(pad(ids, padding_value=PAD_ID), pad(labels, padding_value=NOT_LEARNED))


def _expand(conversation: Encoded, lengths: Iterator[int]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Ids and labels of one conversation."""
    counts = torch.tensor([next(lengths) if word == IMAGE_ID else 1 for word in conversation.ids])
    ids = torch.tensor(conversation.ids).repeat_interleave(counts)
    learned = torch.tensor(conversation.learned).repeat_interleave(counts)
    following = ids.where(learned, NOT_LEARNED).roll(-1)  # position i predicts word i + 1
    following[-1] = NOT_LEARNED
    return ids, following
