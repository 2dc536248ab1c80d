"""Which prefixes a step rebuilds images from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def length_shares(capacity: int, log_uniform: float = 0.0, whole: float = 0.0) -> Float[Tensor, " K"]:
    """How often each length from 1 to ``capacity`` is drawn.

    Args:
        capacity: K, at least 1.
        log_uniform: share of log-uniform lengths, which are short more often.
        whole: share of K itself. What the two leave is uniform.
    """
    lengths = torch.arange(1, capacity + 1)
    shares = log_uniform * torch.log1p(1 / lengths) / torch.log(torch.tensor(capacity + 1.0))
    shares = shares + (1 - log_uniform - whole) / capacity
    shares[-1] += whole
    return shares


def spread_draws(
    shares: Float[Tensor, " K"], images: int, prefixes: int, draws: torch.Generator
) -> Int[Tensor, "prefixes images"]:
    """Lengths for each image's prefixes, spread evenly over ``shares``.

    Every length is as likely for every prefix as its share says, but an image's prefixes come one from each of as many equally
    likely ranges of lengths, and the images of a step lie evenly within theirs: they never all happen to be short.
    """
    ranks = torch.stack([torch.randperm(images, generator=draws) for _ in range(prefixes)]).float()
    within = (ranks + torch.rand(prefixes, images, generator=draws)) / images
    ranges = torch.stack([torch.randperm(prefixes, generator=draws) for _ in range(images)], dim=1)
    found = torch.searchsorted(shares.cumsum(0), (ranges + within) / prefixes) + 1
    return found.clamp(max=len(shares))
