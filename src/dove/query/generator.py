"""Query conditioning of the token generator (section 2.3): words in front of the latents, at timestamp 0 like them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dove.models.locator import Locator
from dove.models.region import RegionLayout, RegionMark, rectangle_code
from dove.models.token_decoder import BandTokenDecoder
from dove.models.token_generator import BandTimestamps, GeneratorOutput, TokenGenerator
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
        num_tokens = num_tokens or self.config.max_tokens
        grid = self.latent_projection(latents) + self.grid_positions
        return self.continued(grid, query, self.timestamps(latents, num_tokens))

    def continued(
        self, grid: Float[Tensor, "B N H"], query: QueryTokens, timestamps: Float[Tensor, "B k H"]
    ) -> GeneratorOutput:
        """Tokens from embedded latents, words and embedded timestamps."""
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


class RegionTokenGenerator(QueryTokenGenerator):
    """f with a query that picks a rectangle of cells, of which the timestamps then see the bands first.

    The rectangle is written into the first token, for the token decoder to read.
    """

    timestamps: BandTimestamps

    def __init__(self, config: QDoveConfig):
        super().__init__(config)
        side, width = config.vqgan.grid_size, config.generator.hidden_size
        self.locator = Locator(config, config.region)
        self.layout = RegionLayout(side, config.vqgan.channels, config.region.context_tokens)
        self.mark = RegionMark(config.token_dim, side)
        self.region_embedding = RegionEmbedding(width, side)

    def find(self, latents: Float[Tensor, "B N C"], query: QueryTokens) -> Int[Tensor, "B 4"]:
        """The rectangle of cells that each query asks for: upper, left, lower, right; null and strange ones the empty one."""
        return self.locator.best_rectangle(self.cell_logits(latents, query)) * query.asked[:, None]

    def cell_logits(
        self, latents: Float[Tensor, "B N C"], query: QueryTokens, image_of: Int[Tensor, " Q"] | None = None
    ) -> Float[Tensor, "Q N"]:
        """Log-odds of every cell to be asked for, one query for each image or those of ``image_of``."""
        image_of = torch.arange(len(latents), device=latents.device) if image_of is None else image_of
        return self.locator(latents, self.query_embedding(query), query.mask, image_of)

    def conditioned(
        self, latents: Float[Tensor, "B N C"], query: QueryTokens, num_tokens: int | None = None
    ) -> GeneratorOutput:
        return self.about(latents, query, self.find(latents, query), num_tokens)

    def about(
        self,
        latents: Float[Tensor, "B N C"],
        query: QueryTokens,
        rectangles: Int[Tensor, "B 4"],
        num_tokens: int | None = None,
    ) -> GeneratorOutput:
        """Tokens of which those behind the context describe given rectangles first."""
        bands = self.layout.split(latents, self.timestamps.bands, rectangles)
        timestamps = self.timestamps.embed(bands[:, : num_tokens or self.config.max_tokens])
        timestamps = timestamps + self.region_embedding(rectangles)[:, None]
        grid = self.latent_projection(latents) + self.grid_positions
        output = self.continued(grid, query, timestamps)
        return GeneratorOutput(self.mark.write(output.values, rectangles), output.eos)


class RegionTokenDecoder(BandTokenDecoder):
    """g for tokens that may describe a rectangle first; those of a whole picture it decodes as its parent does."""

    def __init__(self, config: QDoveConfig):
        super().__init__(config)
        side = config.vqgan.grid_size
        self.layout = RegionLayout(side, config.vqgan.channels, config.region.context_tokens)
        self.mark = RegionMark(config.token_dim, side)
        self.region_embedding = RegionEmbedding(config.decoder.hidden_size, side)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N C"]:
        rectangles = self.mark.read(values)
        if not rectangles.any():  # all whole pictures: to the last bit what the parent makes of them
            return super().forward(values)
        hidden = self.token_projection(self.mark.erase(values, rectangles)) + self.positions
        hidden = self.backbone(hidden + self.region_embedding(rectangles)[:, None])
        return self.layout.merge(self.latent_projection(hidden), self.bands, rectangles)


class RegionEmbedding(nn.Module):
    """A vector for every rectangle, zero for the empty one and, before training, for all."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side = side
        self.projection = nn.Linear(4 * side, width, bias=False)
        nn.init.zeros_(self.projection.weight)

    def forward(self, rectangles: Int[Tensor, "B 4"]) -> Float[Tensor, "B H"]:
        return self.projection(rectangle_code(rectangles, self.side))


def make_query_generator(config: QDoveConfig) -> QueryTokenGenerator:
    """The generator for what ``config`` says about regions."""
    return QueryTokenGenerator(config) if config.region.kind == "none" else RegionTokenGenerator(config)
