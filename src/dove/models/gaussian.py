"""Gaussian tokens (Appendix D): a mean and a variance for every learned number."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.losses.gaussian import divergence_from_standard_normal
from dove.models.eos import EosScores
from dove.models.prior import PriorCode
from dove.models.token_generator import GeneratorOutput, TokenGenerator

INITIAL_LOG_VARIANCE = -6.0
"""Log-variance at initialisation: tokens are nearly certain (standard deviation 0.05), so that a model with the weights of a
plain DOVE begins with its quality."""
LOG_VARIANCE_LIMITS = (-12.0, 4.0)  # Range that predicted log-variances are clamped to


@dataclass(frozen=True)
class GaussianOutput(GeneratorOutput):
    """Tokens as distributions; ``values`` are their means, which inference uses."""

    log_variance: Float[Tensor, "B k D"]

    def sample(self) -> Float[Tensor, "B k D"]:
        """Draw tokens, with the gradient of the reparameterisation."""
        return self.values + (self.log_variance / 2).exp() * torch.randn_like(self.values)

    def divergence(self) -> Float[Tensor, "B k"]:
        """Compute the KL divergence of each token from the standard normal distribution, in nats per dimension."""
        return divergence_from_standard_normal(self.values, self.log_variance)


class GaussianTokenGenerator(TokenGenerator):
    """Token generator f whose tokens are means, with log-variances from a second projection of the same hidden states.

    Numbers that a prior fixes are not noisy: their log-variance is the lower limit.
    """

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.log_variance_projection = nn.Linear(config.generator.hidden_size, config.learned_numbers)
        nn.init.zeros_(self.log_variance_projection.weight)
        nn.init.constant_(self.log_variance_projection.bias, INITIAL_LOG_VARIANCE)

    def output(
        self, grid: Float[Tensor, "B N H"], hidden: Float[Tensor, "B k H"], code: PriorCode, eos: EosScores
    ) -> GaussianOutput:
        """Compute Gaussian tokens from the last hidden states of the first k timestamps."""
        point = super().output(grid, hidden, code, eos)
        learned = self.log_variance_projection(hidden).float().clamp(*LOG_VARIANCE_LIMITS)
        padded = F.pad(learned, (self.config.prior_numbers, 0), value=LOG_VARIANCE_LIMITS[0])
        log_variance = torch.where(code.learned[: hidden.shape[1]] > 0, padded, LOG_VARIANCE_LIMITS[0])
        return GaussianOutput(point.values, eos, grid, hidden, log_variance)
