"""Tokens to latents: GPT-NeoX stacks in which every position sees every other, or every kept one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.models.backbone import Backbone
from dove.models.bands import make_bands


class TokenDecoder(nn.Module):
    """g: the zero-padded tokens (B, K, D) in, grid latents (B, N, C) out, in one non-autoregressive forward.

    Position i of the sequence becomes grid position i (row-major), hence N = K. A learned position vector is added to
    every token, so that zeroed positions still know which grid cell they are.
    """

    def __init__(self, config: DoveConfig):
        super().__init__()
        width = config.decoder.hidden_size
        self.token_projection = nn.Linear(config.token_dim, width)
        self.positions = nn.Parameter(torch.randn(config.max_tokens, width) * config.decoder.initializer_range)
        self.backbone = Backbone(config.decoder, causal=False)
        self.latent_projection = nn.Linear(width, config.vqgan.channels)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N C"]:
        embedded = self.token_projection(values.to(self.token_projection.weight.dtype)) + self.positions
        return self.latent_projection(self.backbone(embedded))


class KeptReader(nn.Module):
    """Attention by which all positions read the hidden states of the kept tokens. It starts at zero."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, positions: Float[Tensor, "K H"], hidden: Float[Tensor, "B k H"], kept: Bool[Tensor, "B k"]
    ) -> Float[Tensor, "B K H"]:
        """What the positions read; ``kept`` is True where there is something to read."""
        asked = self.query(self.norm(positions.to(hidden.dtype))).expand(len(hidden), -1, -1)
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (asked, *self.key_value(hidden).chunk(2, dim=-1))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, kept[:, None, None])
        return self.output(mixed.transpose(1, 2).flatten(2))


class KeptTokenDecoder(TokenDecoder):
    """Token decoder whose blocks run on the kept tokens alone, up to the batch's longest.

    Tokens that are zero throughout count as cut. Each position's latent is made of its own token's hidden state, where it
    was kept, and of what it reads from all that were.
    """

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.reader = KeptReader(config.decoder.hidden_size, config.decoder.num_heads)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N C"]:
        kept = (values != 0).any(-1)
        kept[:, 0] = True  # an image has a token, even one of zeros, and no row of a softmax may be empty
        longest = int(kept.any(0).nonzero().max()) + 1
        kept = kept[:, :longest]
        embedded = self.token_projection(values[:, :longest].to(self.token_projection.weight.dtype))
        mask = kept[:, None, None].expand(-1, 1, longest, -1)
        hidden = self.backbone(embedded + self.positions[:longest], mask)
        hidden = hidden.masked_fill(~kept[..., None], 0)
        read = self.reader(self.positions, hidden, kept)
        return self.latent_projection(read + F.pad(hidden, (0, 0, 0, len(self.positions) - longest)))


class BandTokenDecoder(TokenDecoder):
    """Token decoder whose position i is band i of the latents instead of grid cell i."""

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.bands = make_bands(config)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N C"]:
        return self.bands.merge(super().forward(values))


class KeptBandTokenDecoder(BandTokenDecoder, KeptTokenDecoder):
    """Both: blocks on the kept tokens alone, and bands at their positions."""


GRID_DECODERS: dict[str, type[TokenDecoder]] = {"all": TokenDecoder, "kept": KeptTokenDecoder}
BAND_DECODERS: dict[str, type[TokenDecoder]] = {"all": BandTokenDecoder, "kept": KeptBandTokenDecoder}


def make_token_decoder(config: DoveConfig) -> TokenDecoder:
    """The token decoder for the basis and the positions that ``config`` names."""
    kinds = GRID_DECODERS if config.token_basis == "grid" else BAND_DECODERS
    return kinds[config.token_decoder](config)
