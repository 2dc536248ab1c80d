"""Token generator f: latents to tokens, every prefix in one parallel forward (Eq. 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.models.eos import EosHead, EosScores, make_eos_head
from dove.models.prior import PriorCode
from dove.models.transformer import KVCache, Transformer


def sinusoidal_encoding(length: int, width: int) -> Float[Tensor, "length width"]:
    """Compute timestamp encodings t_1..t_length: sines in even, cosines in odd dimensions (Vaswani et al., 2017, 3.5)."""
    timestamps = torch.arange(1, length + 1, dtype=torch.float32)[:, None]
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    angles = timestamps * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


@dataclass(frozen=True)
class GeneratorOutput:
    """Tokens of the first k timestamps, before any cut.

    Attributes:
        grid: last hidden states of the N grid positions.
        hidden: last hidden states of the k timestamps.
    """

    values: Float[Tensor, "B k D"]
    eos: EosScores
    grid: Float[Tensor, "B N H"]
    hidden: Float[Tensor, "B k H"]

    def sample(self) -> Float[Tensor, "B k D"]:
        """Return the tokens that training decodes: the values, or a draw where they are distributions."""
        return self.values

    def divergence(self) -> Float[Tensor, "B k"]:
        """Compute each token's divergence from its prior distribution, in nats per dimension: 0 for tokens without one."""
        return self.values.new_zeros(self.values.shape[:2])


@dataclass(frozen=True)
class Prefix:
    """Embedded positions at timestamp 0, which all timestamps see.

    Attributes:
        embeddings: of the words, where there is a query, and of the N grid positions behind them.
        words: number T of positions in front of the grid, at rotary positions -T to -1.
        present: False for words that only fill up a shorter query; None where all positions are there.
    """

    embeddings: Float[Tensor, "B p H"]
    words: int = 0
    present: Bool[Tensor, "B p"] | None = None

    def positions(self, first: int, last: int) -> Int[Tensor, "1 S"]:
        """Return the rotary positions of the places ``first`` to ``last`` - 1 in a sequence that begins with this prefix."""
        return torch.arange(first - self.words, last - self.words, device=self.embeddings.device)[None]

    def mask(self, num_tokens: int) -> Bool[Tensor, "#B 1 S S"]:
        """Make the attention mask: this prefix sees itself, timestamp i sees it and the timestamps up to i."""
        length = self.embeddings.shape[1]
        total = length + num_tokens
        mask = torch.ones(total, total, dtype=torch.bool).tril()
        mask[:length, :length] = True
        mask = mask[None, None].to(self.embeddings.device)
        if self.present is None:
            return mask
        visible = F.pad(self.present, (0, num_tokens), value=True)[:, None, None]
        # An absent word sees itself, as a row of the softmax may not be empty; nobody else sees it.
        return (mask & visible) | torch.eye(total, dtype=torch.bool, device=mask.device)


class TokenGenerator(nn.Module):
    """Token generator f: latents and timestamp encodings in, tokens d_1..d_K and EOS scores out.

    Token d_i never depends on a timestamp after i: the first k outputs of a forward are the outputs of a forward of k. A
    token is a projection of its last hidden state, or, beside a prior, its fixed numbers, followed in the first token by
    such a projection.
    """

    chunk: int | None = None
    """Timestamps generated at a time by :meth:`until`, on a KV cache of those before; None generates all at once."""

    def __init__(self, config: DoveConfig):
        super().__init__()
        self.config = config
        width = config.generator.hidden_size
        self.transformer = Transformer(config.generator)
        self.latent_projection = nn.Linear(config.vqgan.channels, width)
        grid_positions = torch.randn(config.vqgan.grid_size**2, width) * config.generator.initializer_range
        self.grid_positions = nn.Parameter(grid_positions)
        self.token_projection = nn.Linear(width, config.learned_numbers)
        self.eos_head: EosHead = make_eos_head(config)
        self.timestamps = nn.Buffer(sinusoidal_encoding(config.max_tokens, width), persistent=False)

    def embed(self, latents: Float[Tensor, "B N C"]) -> Prefix:
        """Embed the latents of the N grid positions."""
        return Prefix(self.latent_projection(latents) + self.grid_positions)

    def forward(self, prefix: Prefix, code: PriorCode, num_tokens: int | None = None) -> GeneratorOutput:
        """Generate the tokens and EOS scores of the first ``num_tokens`` timestamps (None: all K)."""
        num_tokens = num_tokens or self.config.max_tokens
        length = prefix.embeddings.shape[1]
        sequence = torch.cat([prefix.embeddings, self._timestamps(prefix, 0, num_tokens)], dim=1)
        positions = prefix.positions(0, length + num_tokens)
        states = self.transformer(sequence, prefix.mask(num_tokens), positions)
        grid, hidden = states[:, prefix.words : length], states[:, length:]
        return self.output(grid, hidden, code, self.score(hidden, code, 0))

    def until(
        self,
        prefix: Prefix,
        code: PriorCode,
        num_tokens: int,
        settled: Callable[[EosScores], Bool[Tensor, " B"]],
        at_least: int = 1,
    ) -> GeneratorOutput:
        """Generate as many of the first ``num_tokens`` tokens as are needed, and ``at_least`` so many.

        After each chunk ``settled`` tells from the scores so far which images need no further token.
        """
        if self.chunk is None:
            return self(prefix, code, num_tokens)
        length = prefix.embeddings.shape[1]
        cache: KVCache = {}
        mask = prefix.mask(num_tokens)
        context = self.transformer(prefix.embeddings, mask[..., :length, :length], prefix.positions(0, length), cache)
        states: list[Tensor] = []
        scores: list[EosScores] = []
        first, before = 0, context[:, :0]
        while True:
            last = min(max(first + self.chunk, at_least), num_tokens)
            rows = mask[..., length + first : length + last, : length + last]
            positions = prefix.positions(length + first, length + last)
            hidden = self.transformer(self._timestamps(prefix, first, last), rows, positions, cache)
            # With the position in front of the chunk, as the EOS of a position may depend on the one before.
            overlap = before.shape[1]
            scores.append(self.score(torch.cat([before, hidden], dim=1), code, first - overlap)[overlap:])
            states.append(hidden)
            first, before = last, hidden[:, -1:]
            eos = EosScores.cat(scores)
            if first == num_tokens or settled(eos).all():
                return self.output(context[:, prefix.words :], torch.cat(states, dim=1), code, eos)

    def _timestamps(self, prefix: Prefix, first: int, last: int) -> Float[Tensor, "B k H"]:
        embeddings = prefix.embeddings
        return self.timestamps[first:last].to(embeddings.dtype).expand(embeddings.shape[0], -1, -1)

    def score(self, hidden: Float[Tensor, "B k H"], code: PriorCode, first: int) -> EosScores:
        """Compute EOS scores from the last hidden states of timestamps ``first`` + 1 onward."""
        known = code.quality[:, first : first + hidden.shape[1]]
        return self.eos_head(hidden.to(self.eos_head.projection.weight.dtype), known)

    def output(
        self, grid: Float[Tensor, "B N H"], hidden: Float[Tensor, "B k H"], code: PriorCode, eos: EosScores
    ) -> GeneratorOutput:
        """Compute tokens from the last hidden states of the first k timestamps, and put their scores beside them."""
        count = hidden.shape[1]
        fixed, projected = code.fixed[:, :count], self.token_projection(hidden)
        learned = code.learned[:count] * F.pad(projected.to(fixed.dtype), (self.config.prior_numbers, 0))
        return GeneratorOutput(fixed + learned, eos, grid, hidden)
