"""Query conditioning of the token generator (section 2.3): words in front of the latents, at timestamp 0 like them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dove.models.token_generator import GeneratorOutput, TokenGenerator
from dove.query.config import QDoveConfig
from dove.query.words import QueryTokens


class QueryEmbedding(nn.Module):
    """Words to vectors; a word's place in the query is told by the backbone's rotary positions."""

    def __init__(self, config: QDoveConfig):
        super().__init__()
        width = config.generator.hidden_size
        self.words = nn.Embedding(config.query.vocab_size, width)
        nn.init.normal_(self.words.weight, std=config.generator.initializer_range)

    def forward(self, query: QueryTokens) -> Float[Tensor, "B T H"]:
        return self.words(query.ids) * query.mask[..., None]


class QueryTokenGenerator(TokenGenerator):
    """f with a query: words and latents see each other, timestamp i sees both and the timestamps up to i.

    The words stand in front, at the positions -T to -1, so that all others keep the ones they have without a query.
    """

    def __init__(self, config: QDoveConfig):
        super().__init__(config)
        self.query_embedding = QueryEmbedding(config)

    def conditioned(
        self, latents: Float[Tensor, "B N C"], query: QueryTokens, num_tokens: int | None = None
    ) -> GeneratorOutput:
        """Tokens and EOS scores of the first ``num_tokens`` timestamps (None: all K), one query for each image."""
        grid = self.latent_projection(latents) + self.grid_positions
        timestamps = self.timestamps(latents, num_tokens or self.config.max_tokens)
        words = self.query_embedding(query)
        sequence = torch.cat([words.to(grid.dtype), grid, timestamps.to(grid.dtype)], dim=1)
        count = words.shape[1]
        positions = torch.arange(-count, sequence.shape[1] - count, device=grid.device)[None]
        hidden = self.backbone(sequence, self.query_mask(query.mask, sequence.shape[1]), positions)
        hidden = hidden[:, count + grid.shape[1] :]
        return GeneratorOutput(self.token_projection(hidden), self.eos_head(hidden))

    def query_mask(self, present: Bool[Tensor, "B T"], span: int) -> Bool[Tensor, "B 1 S S"]:
        """Who sees whom in a sequence of ``span`` positions of which the first T are words, not all of them there."""
        batch, count = present.shape
        mask = torch.ones(batch, 1, span, span, dtype=torch.bool, device=present.device)
        mask[:, :, count:, count:] = self.mask[..., : span - count, : span - count]
        mask[:, :, :count, count + len(self.grid_positions) :] = False
        mask[:, :, :, :count] = present[:, None, None, :]
        # An absent word sees itself, as a row of the softmax may not be empty; nobody sees it.
        return mask | torch.eye(span, dtype=torch.bool, device=present.device)
