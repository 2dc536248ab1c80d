"""Token decoder g: kept tokens to latents, in one forward in which every position sees every other."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.models.token_generator import sinusoidal_encoding
from dove.models.transformer import Transformer
from dove.tokens import Tokens


class TokenDecoder(nn.Module):
    """Token decoder g as in the paper: the zero-padded tokens in, latents of as many grid positions out.

    Position i of the sequence becomes grid position i (row-major), hence N = K. A learned position vector is added to
    every token, so that zeroed positions are told apart.
    """

    def __init__(self, config: DoveConfig):
        super().__init__()
        width = config.decoder.hidden_size
        self.token_projection = nn.Linear(config.token_dim, width)
        self.positions = nn.Parameter(torch.randn(config.max_tokens, width) * config.decoder.initializer_range)
        self.transformer = Transformer(config.decoder)
        self.latent_projection = nn.Linear(width, config.vqgan.channels)

    def forward(self, tokens: Tokens, picture: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Decode tokens to latents; ``picture``, the output of a prior, is unused."""
        values = tokens.values.to(self.token_projection.weight.dtype)
        padded = F.pad(values, (0, 0, 0, len(self.positions) - values.shape[1]))
        return self.latent_projection(self.transformer(self.token_projection(padded) + self.positions))


class PriorTokenDecoder(nn.Module):
    """Token decoder g beside a prior: cells of the prior's picture and kept tokens in, latents of the cells out.

    The sequence holds N cells and as many tokens as it is given, so few tokens cost little. Every cell is told the
    number of kept tokens, which decides what its picture lacks.
    """

    def __init__(self, config: DoveConfig):
        super().__init__()
        width, vqgan = config.decoder.hidden_size, config.vqgan
        self.cell = vqgan.image_size // vqgan.grid_size
        self.cell_projection = nn.Linear(3 * self.cell**2, width)
        self.cell_positions = nn.Parameter(torch.randn(vqgan.grid_size**2, width) * config.decoder.initializer_range)
        self.length_projection = nn.Linear(width, width)
        self.token_projection = nn.Linear(config.token_dim, width)
        self.positions = nn.Parameter(torch.randn(config.max_tokens, width) * config.decoder.initializer_range)
        self.transformer = Transformer(config.decoder)
        self.latent_projection = nn.Linear(width, vqgan.channels)
        self.lengths = nn.Buffer(sinusoidal_encoding(config.max_tokens, width), persistent=False)

    def forward(self, tokens: Tokens, picture: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Decode kept tokens and the prior's picture of them, in [-1, 1] but for overshoot, to latents."""
        dtype = self.token_projection.weight.dtype
        cells = F.pixel_unshuffle(picture.to(dtype), self.cell).flatten(2).transpose(1, 2)
        length = self.length_projection(self.lengths[tokens.lengths - 1].to(dtype))[:, None]
        cells = self.cell_projection(cells) + self.cell_positions + length
        kept = self.token_projection(tokens.values.to(dtype)) + self.positions[: tokens.values.shape[1]]
        visible = F.pad(tokens.mask, (cells.shape[1], 0), value=True)[:, None, None]
        hidden = self.transformer(torch.cat([cells, kept], dim=1), visible)
        return self.latent_projection(hidden[:, : cells.shape[1]])
