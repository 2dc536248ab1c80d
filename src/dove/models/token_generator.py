"""Latents to tokens: one parallel forward gives every prefix at once (Eq. 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.models.backbone import Backbone
from dove.models.bands import make_bands
from dove.models.eos import EosHead, EosScores, make_eos_head


def sinusoidal_encoding(length: int, width: int) -> Float[Tensor, "length width"]:
    """Timestamp encodings t_1..t_length: sines in even, cosines in odd dimensions ("Attention is all you need", 3.5)."""
    timestamps = torch.arange(1, length + 1, dtype=torch.float32)[:, None]
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    angles = timestamps * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def prefix_mask(prefix: int, num_tokens: int) -> Bool[Tensor, "1 1 S S"]:
    """Who sees whom: the first ``prefix`` positions see each other, timestamp i sees them and timestamps up to i."""
    total = prefix + num_tokens
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    mask[:prefix, :prefix] = True
    return mask[None, None]


class SinusoidalTimestamps(nn.Module):
    """The paper's timestamp inputs: t_i alone."""

    encodings: Tensor

    def __init__(self, config: DoveConfig):
        super().__init__()
        encodings = sinusoidal_encoding(config.max_tokens, config.generator.hidden_size)
        self.register_buffer("encodings", encodings, persistent=False)

    def forward(self, latents: Float[Tensor, "B N C"], num_tokens: int) -> Float[Tensor, "B k H"]:
        return self.encodings[:num_tokens].to(latents.dtype).expand(latents.shape[0], -1, -1)


class BandTimestamps(SinusoidalTimestamps):
    """t_i together with band i of the latents, which is a function of the image alone: the prefix property stays."""

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        width = config.generator.hidden_size
        self.bands = make_bands(config)
        self.projection = nn.Linear(width + config.vqgan.channels, width)

    def forward(self, latents: Float[Tensor, "B N C"], num_tokens: int) -> Float[Tensor, "B k H"]:
        timestamps = super().forward(latents, num_tokens)
        return self.projection(torch.cat([timestamps, self.bands.split(latents)[:, :num_tokens]], dim=-1))


@dataclass(frozen=True)
class GeneratorOutput:
    """All K tokens with the EOS scores of their positions."""

    values: Float[Tensor, "B K D"]
    eos: EosScores

    def sample(self) -> Float[Tensor, "B K D"]:
        """The tokens that training decodes: these, unless they stand for a distribution."""
        return self.values

    def divergence(self) -> Float[Tensor, "B K"]:
        """How far each token is from its prior, in nats per dimension: 0 for tokens without one."""
        return self.values.new_zeros(self.values.shape[:2])


class TokenGenerator(nn.Module):
    """f: grid latents and timestamp encodings in, tokens d_1..d_K and EOS scores out.

    Token d_i never depends on a timestamp after i: the first k outputs of a forward are the outputs of a forward of k.
    """

    mask: Tensor

    def __init__(self, config: DoveConfig):
        super().__init__()
        self.config = config
        width = config.generator.hidden_size
        grid_positions = config.vqgan.grid_size**2
        self.backbone = Backbone(config.generator, causal=True)
        self.latent_projection = nn.Linear(config.vqgan.channels, width)
        self.grid_positions = nn.Parameter(torch.randn(grid_positions, width) * config.generator.initializer_range)
        self.timestamps = (SinusoidalTimestamps if config.token_basis == "grid" else BandTimestamps)(config)
        self.token_projection = nn.Linear(width, config.token_dim)
        self.eos_head: EosHead = make_eos_head(config)
        self.register_buffer("mask", prefix_mask(grid_positions, config.max_tokens), persistent=False)

    def forward(self, latents: Float[Tensor, "B N C"], num_tokens: int | None = None) -> GeneratorOutput:
        """Tokens and EOS scores of the first ``num_tokens`` timestamps (None: all K)."""
        num_tokens = num_tokens or self.config.max_tokens
        hidden = self.hidden_states(latents, num_tokens)[:, latents.shape[1] :]
        return GeneratorOutput(self.token_projection(hidden), self.eos_head(hidden))

    def until(
        self,
        latents: Float[Tensor, "B N C"],
        num_tokens: int,
        settled: Callable[[EosScores], Bool[Tensor, " B"]],
        at_least: int = 1,
    ) -> GeneratorOutput:
        """As many of the first ``num_tokens`` tokens as are needed.

        Args:
            latents: of the images.
            num_tokens: the most tokens to generate, up to K.
            settled: which images need no further token, told from the scores of those so far. One forward makes all tokens
                here and has nothing to ask; a generator that makes them in turn may stop early.
            at_least: how many tokens are needed whatever their scores.
        """
        return self(latents, num_tokens)

    def hidden_states(self, latents: Float[Tensor, "B N C"], num_tokens: int) -> Float[Tensor, "B S H"]:
        """Last hidden states of the N grid positions followed by those of the timestamps."""
        grid = self.latent_projection(latents) + self.grid_positions
        sequence = torch.cat([grid, self.timestamps(latents, num_tokens).to(grid.dtype)], dim=1)
        span = sequence.shape[1]
        return self.backbone(sequence, self.mask[..., :span, :span])
