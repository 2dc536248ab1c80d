"""Tokens to latents: a GPT-NeoX stack in which every position sees every other."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.models.backbone import Backbone
from dove.models.bands import LatentBands


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


class BandTokenDecoder(TokenDecoder):
    """Token decoder whose position i is band i of the latents instead of grid cell i."""

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.bands = LatentBands(config.vqgan.grid_size, config.vqgan.channels)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N C"]:
        return self.bands.merge(super().forward(values))


def make_token_decoder(config: DoveConfig) -> TokenDecoder:
    """The token decoder for the basis that ``config`` names."""
    return (BandTokenDecoder if config.token_basis == "bands" else TokenDecoder)(config)
