"""Interface of all tokenizers, so that one evaluation serves them all."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dove.lengths import LengthPolicy
from dove.models.eos import EosScores
from dove.tokens import Tokens


@runtime_checkable
class Tokenizer(Protocol):
    """Conversion of images to tokens and back."""

    @property
    def image_size(self) -> int:
        """Side S of the images, in pixels."""

    @property
    def max_tokens(self) -> int:
        """Capacity K."""

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Numbers of tokens that an image can have, ascending up to K."""

    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Encode images (B, 3, S, S) in [-1, 1]."""

    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Tensor:
        """Decode tokens, or their first ``num_tokens``, to images (B, 3, S, S) in [-1, 1]."""


@runtime_checkable
class EncodesEach(Protocol):
    """Tokenizer that gives several lengths from one encoding."""

    def encode_each(self, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
        """Encode images once; return for each request the same as ``encode``."""


@runtime_checkable
class ScoresLengths(Protocol):
    """Tokenizer whose shorter encodings are the beginnings of longer ones, with a score for each length."""

    @property
    def predicts_quality(self) -> bool:
        """Tell whether the scores hold the PSNR that each length is expected to reach."""

    def score_lengths(self, images: Tensor) -> tuple[Tensor, EosScores]:
        """Encode images in [-1, 1] to all tokens, (B, K, D), and score each number of them as a sequence's end."""


@runtime_checkable
class Layered(Protocol):
    """Tokenizer with hidden states over the N positions of a grid."""

    @property
    def grid_size(self) -> int:
        """Side of the grid; N is its square."""

    @property
    def num_layers(self) -> int:
        """Number L of its hidden layers."""

    def latents(self, images: Tensor) -> Tensor:
        """Compute the latents (B, N, C) of images in [-1, 1], which the hidden layers start from."""

    def hidden_layers(self, images: Tensor) -> Tensor:
        """Compute the hidden states (L, B, N, H) of images in [-1, 1], positions row by row."""


def device_of(tokenizer: Tokenizer) -> torch.device:
    """Find the device of a tokenizer; the CPU for one without weights."""
    parameter = next(iter(tokenizer.parameters()), None) if isinstance(tokenizer, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def token_width(tokenizer: Tokenizer) -> int:
    """Find the width D of a tokenizer's tokens, by trying."""
    size = tokenizer.image_size
    images = torch.zeros(1, 3, size, size, device=device_of(tokenizer))
    return tokenizer.encode(images, tokenizer.max_tokens).values.shape[-1]


def encode_each(tokenizer: Tokenizer, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
    """Encode images by several policies: from one encoding where the tokenizer can, else one by one."""
    if isinstance(tokenizer, EncodesEach):
        return tokenizer.encode_each(images, requests)
    return [tokenizer.encode(images, request) for request in requests]
