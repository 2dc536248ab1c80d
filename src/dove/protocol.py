"""What every tokenizer offers, so that one evaluation serves them all."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dove.lengths import LengthPolicy
from dove.tokens import Tokens


@runtime_checkable
class Tokenizer(Protocol):
    """Images to tokens and back."""

    @property
    def image_size(self) -> int:
        """Side S of the images, in pixels."""

    @property
    def max_tokens(self) -> int:
        """Capacity K."""

    @property
    def token_counts(self) -> tuple[int, ...]:
        """The numbers of tokens that an image can have, ascending up to K."""

    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Tokens of images (B, 3, S, S) in [-1, 1]."""

    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1]."""


@runtime_checkable
class EncodesEach(Protocol):
    """A tokenizer that gives several lengths for the price of one."""

    def encode_each(self, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
        """What ``encode`` gives for each of the requests."""


def device_of(tokenizer: Tokenizer) -> torch.device:
    """Where a tokenizer computes; the CPU for one without weights."""
    parameter = next(iter(tokenizer.parameters()), None) if isinstance(tokenizer, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def encode_each(tokenizer: Tokenizer, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
    """Tokens of the same images by several policies: from one encoding where the tokenizer can, else one by one."""
    if isinstance(tokenizer, EncodesEach):
        return tokenizer.encode_each(images, requests)
    return [tokenizer.encode(images, request) for request in requests]
