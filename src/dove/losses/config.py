"""Settings of the losses. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReconstructionWeights:
    """Weights of Eq. 2. The defaults are the paper's."""

    mse: float = 1.0
    """Weight of the mean squared error."""
    perceptual: float = 0.1
    """Weight of the perceptual distance."""
    gan: float = 5e-10
    """Weight of the adversarial term; the paper keeps it this small against hallucinated detail."""
