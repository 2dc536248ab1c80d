"""Eq. 3: the loss of the EOS probabilities, the running threshold that it compares with, and the ramp of its weight."""

import math
from collections import deque

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from dove.errors import UserError


def mean_over_ranks(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Average a scalar over all processes; it stays as it is where torch.distributed is not initialised."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)  # a sum: gloo has no mean
    return total / distributed.get_world_size()


class RunningThreshold:
    """Threshold of Eq. 3: the mean reconstruction loss of the previous training steps.

    The window has one entry per step, the batch's mean averaged over ranks, so every rank holds the same threshold. A step is
    compared with the steps before it; the very first one, having none, is compared with its own mean. A non-finite mean is not
    kept: one bad batch would spoil the whole window.

    Raises:
        UserError: for a window of less than one step.
    """

    def __init__(self, window: int = 100) -> None:
        if window < 1:
            raise UserError(f"the threshold's window is {window} steps; it needs at least 1")
        self._means: deque[float] = deque(maxlen=window)
        self._number: int | None = None
        self._before: float | None = None
        self._parts: list[float] = []

    @property
    def value(self) -> float | None:
        """Mean over the window; None before the first step."""
        return math.fsum(self._means) / len(self._means) if self._means else None

    def step(self, losses: Float[Tensor, " B"], number: int | None = None) -> float:
        """Compute the threshold for this step's losses, and add their mean to the window for later steps.

        Collective: with several ranks, every rank calls it once per batch.

        Args:
            losses: L_rec of this rank's samples.
            number: of the training step. Batches of one step have one entry in the window and, except in the first step of
                all, one threshold; None makes every call a step.
        """
        if number is None or number != self._number:
            self._before, self._parts = self.value, []
        self._number = number
        mean = mean_over_ranks(losses.detach().float().mean()).item()
        if math.isfinite(mean):
            if self._parts:
                self._means.pop()
            self._parts.append(mean)
            self._means.append(math.fsum(self._parts) / len(self._parts))
        return mean if self._before is None else self._before

    def state_dict(self) -> dict[str, list[float]]:
        """Return the means of the window, oldest first."""
        return {"means": list(self._means)}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Restore a saved window. Of a longer one, the latest steps that fit are kept."""
        self._means.clear()
        self._number = None
        self._means.extend(state["means"])


def eos_loss(
    probability: Float[Tensor, "B K"], lengths: Int[Tensor, " B"], losses: Float[Tensor, " B"], threshold: float
) -> Float[Tensor, " B"]:
    """Compute Eq. 3 per sample.

    With the EOS at position m, counted from 1::

        L_eos = p(m)                              where L_rec >  threshold: more tokens are needed
        L_eos = -1/(m-1) * sum over i < m of p(i)  where L_rec <= threshold: fewer would do

    The EOS cannot be emitted at position 1, so p(1) counts as 0, while m - 1 stays the printed divisor. A sample that
    emitted no EOS has m = K + 1 and nothing to postpone: its p(m) is 0. With m = 1 both branches are 0.

    Args:
        probability: p(i) in [0, 1].
        lengths: tokens kept, EOS excluded, 0 to K: m - 1. K means that no EOS was emitted.
        losses: L_rec. Only compared: no gradient flows into it.
        threshold: value that ``losses`` is compared with.

    Returns:
        The loss in float32, in [-1, 1].
    """
    # Position m has index ``lengths``, and the m - 1 positions before it have the indices below.
    index = torch.arange(probability.shape[1], device=probability.device)
    probability = probability.float() * (index > 0)
    postpone = (probability * (index == lengths[:, None])).sum(dim=1)
    advance = -(probability * (index < lengths[:, None])).sum(dim=1) / lengths.clamp(min=1)
    return torch.where(losses.detach() > threshold, postpone, advance)


def eos_weight(progress: float, weight: float, *, delay: float, ramp: float) -> float:
    """Compute lambda_eos: 0, then a straight line up to its final value, then that value.

    Args:
        progress: share of the run that is done, from 0 to 1.
        weight: the final value.
        delay: share of the run before the ramp.
        ramp: share of the run that the ramp takes; 0 for the full weight at once.
    """
    if progress >= delay + ramp:
        return weight
    return weight * max(0.0, progress - delay) / ramp if ramp else 0.0
