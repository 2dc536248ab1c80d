"""Query conditioning of the token generator (section 2.3): words in front of the latents, at timestamp 0 like them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.models.token_generator import Prefix, TokenGenerator
from dove.query.config import QDoveConfig
from dove.query.words import QueryTokens


class QueryEmbedding(nn.Module):
    """Word embedding of queries; rotary positions encode a word's place in the query."""

    def __init__(self, config: QDoveConfig):
        super().__init__()
        self.words = nn.Embedding(config.query.vocab_size, config.generator.hidden_size)
        nn.init.normal_(self.words.weight, std=config.generator.initializer_range)

    def forward(self, query: QueryTokens) -> Float[Tensor, "B T H"]:
        """Embed words; places without one are zero."""
        return self.words(query.ids) * query.mask[..., None]


class QueryTokenGenerator(TokenGenerator):
    """Token generator f with a query: words and latents see each other, timestamp i sees both and the timestamps up to i.

    The words stand in front, at the positions -T to -1, so that all others keep the ones they have without a query.
    """

    def __init__(self, config: QDoveConfig):
        super().__init__(config)
        self.query_embedding = QueryEmbedding(config)

    def embed_with(self, latents: Float[Tensor, "B N C"], query: QueryTokens) -> Prefix:
        """Embed one query for each image and the latents behind it."""
        grid = self.embed(latents).embeddings
        words = self.query_embedding(query).to(grid.dtype)
        present = F.pad(query.mask, (0, grid.shape[1]), value=True)
        return Prefix(torch.cat([words, grid], dim=1), words.shape[1], present)
