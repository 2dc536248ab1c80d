"""Gaussian tokens (Appendix D): a mean and a variance for every token dimension."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.losses.gaussian import divergence_from_standard_normal
from dove.models.token_generator import GeneratorOutput, TokenGenerator

START_LOG_VARIANCE = -6.0
"""Tokens start nearly certain (standard deviation 0.05), so that a model adopted from plain DOVE starts where that was."""
LOG_VARIANCE_LIMITS = (-12.0, 4.0)


@dataclass(frozen=True)
class GaussianOutput(GeneratorOutput):
    """Tokens as distributions; ``values`` are their means, which is what inference uses."""

    log_variance: Float[Tensor, "B K D"]

    def sample(self) -> Float[Tensor, "B K D"]:
        return self.values + (self.log_variance / 2).exp() * torch.randn_like(self.values)

    def divergence(self) -> Float[Tensor, "B K"]:
        return divergence_from_standard_normal(self.values, self.log_variance)


class GaussianTokenGenerator(TokenGenerator):
    """f whose tokens are means, with log-variances from a second projection of the same hidden states."""

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.log_variance_projection = nn.Linear(config.generator.hidden_size, config.token_dim)
        nn.init.zeros_(self.log_variance_projection.weight)
        nn.init.constant_(self.log_variance_projection.bias, START_LOG_VARIANCE)

    def forward(self, latents: Float[Tensor, "B N C"], num_tokens: int | None = None) -> GaussianOutput:
        hidden = self.hidden_states(latents, num_tokens or self.config.max_tokens)[:, latents.shape[1] :]
        log_variance = self.log_variance_projection(hidden).clamp(*LOG_VARIANCE_LIMITS)
        return GaussianOutput(self.token_projection(hidden), self.eos_head(hidden), log_variance)
