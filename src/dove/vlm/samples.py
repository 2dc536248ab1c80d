"""Samples of a training step: conversations with randomly chosen views, lengths and questions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from dove.tokens import Tokens
from dove.vlm.cache import TokenCache
from dove.vlm.config import PREFIX, VLMTrainConfig
from dove.vlm.data import Conversation, Conversations, some_questions
from dove.vlm.images import Glimpse, load_view
from dove.vlm.text import Encoded, PromptWriter


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random choices for one image of one step."""

    request: str  # The length policy
    view: int  # Index of the image's view
    share: float  # In [0, 1): which prefix, where the policy is a random one

    def cut(self, sequence: Float[Tensor, "k D"]) -> Float[Tensor, "n D"]:
        """A uniformly random prefix of at least one token where the policy says so."""
        return sequence[: 1 + int(self.share * len(sequence))] if self.request == PREFIX else sequence


@dataclass(frozen=True, eq=False)
class AnswerBatch:
    """Conversations with their images, as tokens or as pixels still to be encoded.

    Attributes:
        tokens: of all images in order; None without images, or where ``pixels`` are given.
        pixels: of all images; None where tokens are given.
        draws: how many tokens each image gets, in order.
        queries: what a query-conditioned tokenizer is asked for, one per image.
    """

    conversations: tuple[Encoded, ...]
    keys: tuple[str, ...]
    tokens: Tokens | None = None
    pixels: Float[Tensor, "M 3 S S"] | None = None
    draws: tuple[Draw, ...] = ()
    queries: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.conversations)

    def to(self, device: torch.device) -> "AnswerBatch":
        """The same on another device."""
        tokens = None if self.tokens is None else self.tokens.to(device)
        pixels = None if self.pixels is None else self.pixels.to(device)
        return replace(self, tokens=tokens, pixels=pixels)


class Collator:
    """Conversations and their seeds to a batch.

    Args:
        cache: tokens made ahead; None to load pixels.
    """

    def __init__(
        self,
        config: VLMTrainConfig,
        writer: PromptWriter,
        conversations: Conversations,
        image_size: int,
        cache: TokenCache | None = None,
    ) -> None:
        self.config, self.writer, self.conversations = config, writer, conversations
        self.image_size, self.cache = image_size, cache
        self.weights = conversations.answer_weights(config.answer_balance)

    def __call__(self, samples: Sequence[tuple[Conversation, int]]) -> AnswerBatch:
        """Make a batch of conversations with their seeds; one length policy for all, as a batch is padded to its longest."""
        most = self.config.questions_per_image
        samples = [(some_questions(item, most, self.weights, seed), seed) for item, seed in samples]
        encoded = tuple(encode_conversation(self.writer, item) for item, _ in samples)
        keys = tuple(item.key for item, _ in samples)
        requests = self.config.num_tokens
        request = requests[int(np.random.default_rng([samples[0][1], 2]).integers(len(requests)))]
        seen = [(glimpse, draw) for item, seed in samples for glimpse, draw in self._draws(item, request, seed)]
        if not seen or self.writer.blind:
            return AnswerBatch(conversations=encoded, keys=keys)
        draws = tuple(draw for _, draw in seen)
        queries = tuple(glimpse.query for glimpse, _ in seen)
        if self.cache is not None:
            rows = [draw.cut(self.cache(glimpse, draw.request, draw.view)) for glimpse, draw in seen]
            tokens = Tokens.from_ragged(rows, self.cache.max_tokens)
            return AnswerBatch(conversations=encoded, keys=keys, tokens=tokens, draws=draws, queries=queries)
        images, views, seed = self.conversations.images, self.config.views, self.config.run.seed
        pixels = torch.stack(
            [load_view(images, glimpse.index, self.image_size, views, seed, draw.view) for glimpse, draw in seen]
        )
        return AnswerBatch(conversations=encoded, keys=keys, pixels=pixels, draws=draws, queries=queries)

    def _draws(self, item: Conversation, request: str, seed: int) -> list[tuple[Glimpse, Draw]]:
        rng = np.random.default_rng(seed)
        drawn = []
        for glimpse in item.glimpses:
            view, share = int(rng.integers(self.config.views.count)), float(rng.random())
            drawn.append((glimpse, Draw(request=request, view=view, share=share)))
        return drawn


class Samples(Dataset[tuple[Conversation, int]]):
    """Conversations with the seeds of their random choices, by the pairs of a ``ResumableSampler``."""

    def __init__(
        self, conversations: Conversations, seed: int, collate: Callable[[Sequence[tuple[Conversation, int]]], Any]
    ) -> None:
        self.conversations, self.seed, self.collate = conversations, seed, collate

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, sample: tuple[int, int]) -> tuple[Conversation, int]:
        epoch, index = sample
        drawn = np.random.default_rng([self.seed, epoch, index + 1]).integers(2**62)
        return self.conversations.items[index], int(drawn)


def encode_conversation(writer: PromptWriter, item: Conversation) -> Encoded:
    """Its word ids."""
    return (writer.conversation if item.follows else writer.questions)(item.turns, item.key)
