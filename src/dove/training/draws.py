"""Numbers of tokens that a step rebuilds its images from."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def draw_lengths(
    count: int, capacity: int, caps: Sequence[int], shares: Sequence[float], draws: torch.Generator
) -> Int[Tensor, " count"]:
    """Draw log-uniform lengths up to a cap that all of them share.

    Every length is as likely for every image, but those of a step lie evenly within the range: they never all happen to be
    short.
    """
    chosen = int(torch.multinomial(torch.tensor(shares), 1, generator=draws))
    cap = min(caps[chosen], capacity)
    places = (torch.randperm(count, generator=draws) + torch.rand(count, generator=draws)) / count
    return (places * math.log(cap + 1)).exp().long().clamp(1, cap)
