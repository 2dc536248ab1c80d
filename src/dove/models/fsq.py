"""Discrete tokens: finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505) of every token number.

The paper bounds a number by tanh and rounds it to as many levels as its channel has. Here the numbers come from a tokenizer
that already works, and their sizes differ by orders of magnitude: each number of each position has its own range, step and
count of levels, and the bound is a clamp, which leaves numbers inside the range where they are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.models.token_generator import TokenGenerator

UNFITTED_LEVELS = 257
UNFITTED_REACH = 4.0
"""Until it has seen data, a grid has so many levels from minus to plus this reach."""
MOST_LEVELS = 4096
"""More would not be told apart in the result of a 16-bit computation."""
TAIL = 0.001
"""Share of a number's values on either side that its levels don't reach."""


class TokenGrid(nn.Module):
    """Levels ``lowest + id * step`` for ids 0 to ``levels - 1``, by position and dimension. It has no parameters."""

    lowest: Tensor
    step: Tensor
    levels: Tensor

    def __init__(self, max_tokens: int, token_dim: int):
        super().__init__()
        shape = max_tokens, token_dim
        self.register_buffer("lowest", torch.full(shape, -UNFITTED_REACH))
        self.register_buffer("step", torch.full(shape, 2 * UNFITTED_REACH / (UNFITTED_LEVELS - 1)))
        self.register_buffer("levels", torch.full(shape, UNFITTED_LEVELS, dtype=torch.int32))

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` has seen data."""
        return not bool((self.levels == UNFITTED_LEVELS).all())

    @property
    def bits(self) -> Float[Tensor, " K"]:
        """Bits of each token at a fixed length: the sum of log2(levels)."""
        return self.levels.float().log2().sum(1)

    @torch.no_grad()
    def fit(self, values: Float[Tensor, "M K D"], sensitivity: Float[Tensor, "K D"], fineness: float) -> None:
        """Set range, step and levels so that rounding costs about the same in the picture whatever the number.

        A level lies at the median, where most numbers are, so that few levels still cost few bits by their frequencies. A
        number that hardly moves the picture over its whole range gets this level alone.

        Args:
            values: unrounded tokens of images.
            sensitivity: length of the picture's change for a unit change of a number.
            fineness: length of the picture's change by one step.
        """
        low, middle, high = (_quantile(values, share) for share in (TAIL, 0.5, 1 - TAIL))
        steps_down, steps_up = (
            (reach * sensitivity / fineness).round().clamp(max=MOST_LEVELS // 2)
            for reach in (middle - low, high - middle)
        )
        levels = steps_down + steps_up + 1
        step = torch.where(levels > 1, fineness / sensitivity, 1.0)
        self.lowest.copy_(middle - steps_down * step)
        self.step.copy_(step)
        self.levels.copy_(levels)

    def ids(self, values: Float[Tensor, "B L D"]) -> Int[Tensor, "B L D"]:
        """Number of the level next to each number of the first L tokens, from 0; what lies outside gets the outermost."""
        return self._places(values).round().long()

    def values(self, ids: Int[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The first L tokens that these ids stand for, in fp32."""
        length = ids.shape[1]
        return self.lowest[:length].float() + ids * self.step[:length].float()

    def forward(self, values: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The first L tokens on their levels, in fp32: to the bit ``values(ids(...))``.

        Gradients pass as if nothing was rounded; they end where a number lies outside of its range or has one level.
        """
        length = values.shape[1]
        places = self._places(values)
        bounded = places * self.step[:length]
        return self.values(places.detach().round().long()) + (bounded - bounded.detach())

    def _places(self, values: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Places among the levels before rounding, from 0 to levels - 1."""
        length = values.shape[1]
        places = (values.float() - self.lowest[:length].float()) / self.step[:length].float()
        # A half level more on either side still rounds to the outermost; gradients have to reach that far, too.
        outer = self.levels[:length] - 0.5001
        places = torch.minimum(places.clamp(min=-0.4999), outer)
        return places.masked_fill(self.levels[:length] == 1, 0)


class FsqTokenGenerator(TokenGenerator):
    """f whose tokens lie on a grid, fitted by ``dove.rounding.fit_grid`` before the training."""

    rounding: TokenGrid

    def __init__(self, config: DoveConfig):
        super().__init__(config)
        self.rounding = TokenGrid(config.max_tokens, config.token_dim)

    def unrounded(self, latents: Float[Tensor, "B N C"]) -> Float[Tensor, "B K D"]:
        """All K tokens before they are rounded."""
        hidden = self.hidden_states(latents, self.config.max_tokens)[:, latents.shape[1] :]
        return self.token_projection(hidden)


def _quantile(values: Float[Tensor, "M K D"], share: float) -> Float[Tensor, "K D"]:
    """By position, as torch sorts no more than 16 million numbers at once here."""
    return torch.stack([part.float().quantile(share, dim=0) for part in values.unbind(1)])
