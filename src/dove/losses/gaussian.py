"""Divergence of Gaussian tokens from their prior."""

from jaxtyping import Float
from torch import Tensor


def divergence_from_standard_normal(
    mean: Float[Tensor, "B K D"], log_variance: Float[Tensor, "B K D"]
) -> Float[Tensor, "B K"]:
    """Compute KL(N(mean, exp(log_variance)) || N(0, 1)) of each token, in nats, averaged over its D dimensions.

    "Auto-Encoding Variational Bayes", appendix B: (mean^2 + variance - 1 - log variance) / 2.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean(-1) / 2
