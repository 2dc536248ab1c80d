"""Grounding of queries in training: which cells of the grid are asked for, told from hidden states by a linear head."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.query.tokenizer import QDove


class GroundingHead(nn.Linear):
    """Linear head on the grid's hidden states in front of the generator's last block.

    The timestamps of the last block read those states; what only the block itself finds out would come too late for them.
    """

    def __init__(self, model: QDove):
        super().__init__(model.config.generator.hidden_size, 1)
        self.cells = model.config.vqgan.grid_size

    @contextmanager
    def watching(self, model: QDove) -> Iterator[list[Tensor]]:
        """Collect the hidden states of all positions in front of the last block of ``model``, while it generates."""
        states: list[Tensor] = []
        last = model.generator.transformer.layers[-1]
        handle = last.register_forward_pre_hook(lambda _block, inputs: states.append(inputs[0]))
        try:
            yield states
        finally:
            handle.remove()

    def loss(
        self, hidden: Float[Tensor, "B N H"], inside: Bool[Tensor, "B S S"], about_part: Bool[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Compute the cross entropy per cell, averaged over the images whose query is about a part; 0 without any.

        Args:
            hidden: states of the grid positions.
            inside: True for pixels in the asked boxes; a cell is asked for by the share of its pixels.
            about_part: True for images with boxes that answer the query.
        """
        share = F.adaptive_avg_pool2d(inside[:, None].float(), self.cells).flatten(1)
        scores = self(hidden)[..., 0].float()
        entropy = F.binary_cross_entropy_with_logits(scores, share, reduction="none").mean(1)
        return (entropy * about_part).sum() / about_part.sum().clamp(min=1)


def grid_states(states: Float[Tensor, "B S H"], words: int, cells: int) -> Float[Tensor, "B N H"]:
    """Cut the grid positions, behind the query's words, out of the states of all positions."""
    return states[:, words : words + cells**2]
