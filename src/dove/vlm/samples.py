"""Samples of a training step: conversations with randomly chosen views, lengths and questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from dove.tokens import Tokens
from dove.vlm.cache import TokenCache
from dove.vlm.config import VLMConfig, VLMTrainConfig
from dove.vlm.data import Conversation, Conversations, some_turns
from dove.vlm.images import Glimpse, load_pixels
from dove.vlm.text import Encoded, PromptWriter


@dataclass(frozen=True, eq=False)
class AnswerBatch:
    """Conversations with their images, as tokens or as pixels still to be encoded.

    Attributes:
        tokens: of all images in order; None without images, or where ``pixels`` are given.
        pixels: of all images; None where tokens are given.
        request: the length policy.
        queries: what a query-conditioned tokenizer is asked for, one for each image.
    """

    conversations: tuple[Encoded, ...]
    keys: tuple[str, ...]
    tokens: Tokens | None = None
    pixels: Float[Tensor, "M 3 S S"] | None = None
    request: str = ""
    queries: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.conversations)

    def to(self, device: torch.device) -> "AnswerBatch":
        """The same on another device."""
        tokens = None if self.tokens is None else self.tokens.to(device)
        pixels = None if self.pixels is None else self.pixels.to(device)
        return replace(self, tokens=tokens, pixels=pixels)


class Samples(Dataset[tuple[Conversation, int]]):
    """Conversations with the seeds of their random choices, by the pairs of a ``ResumableSampler``.

    Args:
        cache: tokens made ahead; None to load pixels.
    """

    def __init__(
        self,
        config: VLMTrainConfig,
        writer: PromptWriter,
        conversations: Conversations,
        settings: VLMConfig,
        cache: TokenCache | None = None,
    ) -> None:
        self.config, self.writer, self.conversations = config, writer, conversations
        self.image_size, self.max_tokens, self.cache = settings.image_size, settings.max_tokens, cache
        self.weights = conversations.answer_weights(config.answer_balance)

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, sample: tuple[int, int]) -> tuple[Conversation, int]:
        epoch, index = sample
        drawn = np.random.default_rng([self.config.run.seed, epoch, index + 1]).integers(2**62)
        return self.conversations.items[index], int(drawn)

    def collate(self, samples: Sequence[tuple[Conversation, int]]) -> AnswerBatch:
        """Make a batch of conversations with their seeds; one length policy for all, as a batch is padded to its longest."""
        requests = self.config.num_tokens
        request = requests[int(np.random.default_rng([samples[0][1], 2]).integers(len(requests)))]
        encoded: list[Encoded] = []
        seen: list[Glimpse] = []
        for item, seed in samples:
            views = np.random.default_rng(seed).integers(self.config.views.count, size=len(item.glimpses)).tolist()
            seen += [replace(glimpse, view=view) for glimpse, view in zip(item.glimpses, views, strict=True)]
            turns = some_turns(item, self.config.questions_per_image, self.weights, seed)
            encoded.append((self.writer.conversation if item.follows else self.writer.questions)(turns, item.key))
        batch = AnswerBatch(conversations=tuple(encoded), keys=tuple(item.key for item, _ in samples))
        if not seen or self.writer.blind:
            return batch
        batch = replace(batch, request=request, queries=tuple(glimpse.query for glimpse in seen))
        if self.cache is not None:
            sequences = [self.cache[glimpse, request].float() for glimpse in seen]
            return replace(batch, tokens=Tokens.from_ragged(sequences, self.max_tokens))
        images, seed = self.conversations.images, self.config.run.seed
        return replace(batch, pixels=load_pixels(images, seen, self.image_size, self.config.views, seed))
