"""Tokens of a batch of images, each with its own length: the value that passes between the stages.

Letters in shapes, here and everywhere: B batch, N grid positions, K capacity in tokens, C latent channels, D token
width, H hidden width, S sequence length, V codebook size; h and w are the sides of the latent grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dove.errors import UserError


def require_whole(num_tokens: object, max_tokens: int) -> None:
    """Raise ``UserError`` for a number of tokens that is no whole number."""
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, Integral):
        raise UserError(f"num_tokens={num_tokens!r} is no whole number; pass 1 to {max_tokens}")


def format_token_count(number: int) -> str:
    """Write a number of tokens as captions and tables do: 1 token, 2 tokens."""
    return f"{number} token" if number == 1 else f"{number} tokens"


@dataclass(frozen=True, eq=False)
class Tokens:
    """Continuous tokens with the number that each image keeps.

    Attributes:
        values: (B, K, D); row b is zero from ``lengths[b]`` onward.
        lengths: (B,) number of tokens kept, from 1 to K, EOS excluded.
    """

    values: Float[Tensor, "B K D"]
    lengths: Int[Tensor, " B"]

    @classmethod
    def cut(cls, values: Float[Tensor, "B L D"], lengths: Int[Tensor, " B"], max_tokens: int | None = None) -> "Tokens":
        """Zero everything from ``lengths`` onward and pad with zeros to ``max_tokens`` (None: keep the width L).

        The values there are overwritten, not multiplied by zero: not even NaN survives, and no gradient flows into them.
        """
        width = values.shape[1]
        dropped = torch.arange(width, device=values.device) >= lengths[:, None]
        values = values.masked_fill(dropped[..., None], 0)
        if max_tokens is not None:
            values = torch.nn.functional.pad(values, (0, 0, 0, max_tokens - width))
        return cls(values, lengths)

    @classmethod
    def from_ragged(cls, sequences: Sequence[Float[Tensor, "_ D"]], max_tokens: int) -> "Tokens":
        """Build tokens from one (k_i, D) tensor per image, the inverse of ``ragged``.

        Raises:
            UserError: If there is no sequence, or one is empty, longer than ``max_tokens`` or of another width.
        """
        if not sequences:
            raise UserError("no token sequence given; pass at least one (k, D) tensor")
        for position, sequence in enumerate(sequences):
            if not 1 <= len(sequence) <= max_tokens:
                raise UserError(f"sequence {position} has {len(sequence)} tokens; each needs 1 to {max_tokens}")
            if sequence.shape[1:] != sequences[0].shape[1:]:
                raise UserError(
                    f"sequence {position} is {tuple(sequence.shape)}, the first {tuple(sequences[0].shape)}"
                )
        values = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        values = torch.nn.functional.pad(values, (0, 0, 0, max_tokens - values.shape[1]))
        return cls(values, torch.tensor([len(sequence) for sequence in sequences], device=values.device))

    @classmethod
    def cat(cls, batches: "Sequence[Tokens]") -> "Tokens":
        """Concatenate batches of equal capacity and width.

        Raises:
            UserError: If there is none.
        """
        if not batches:
            raise UserError("no tokens given; pass at least one batch")
        return cls(torch.cat([batch.values for batch in batches]), torch.cat([batch.lengths for batch in batches]))

    @property
    def mask(self) -> Bool[Tensor, "B K"]:
        """Mask that is True where a token is kept."""
        return torch.arange(self.values.shape[1], device=self.values.device) < self.lengths[:, None]

    def truncate(self, num_tokens: int) -> "Tokens":
        """Keep at most the first ``num_tokens`` tokens of every image; shorter ones stay as they are.

        Raises:
            UserError: If ``num_tokens`` is no whole number from 1 to K.
        """
        capacity = self.values.shape[1]
        require_whole(num_tokens, capacity)
        if not 1 <= num_tokens <= capacity:
            raise UserError(f"num_tokens={num_tokens} is out of range; pass 1 to {capacity}")
        return Tokens.cut(self.values, self.lengths.clamp(max=num_tokens))

    def trim(self) -> "Tokens":
        """Drop the positions behind the longest sequence, which hold zeros alone."""
        return Tokens(self.values[:, : int(self.lengths.max())], self.lengths)

    def ragged(self) -> list[Float[Tensor, "_ D"]]:
        """Split the kept tokens into one (k_i, D) tensor per image."""
        return [row[:length] for row, length in zip(self.values, self.lengths.tolist(), strict=True)]

    def to(self, *args: Any, **kwargs: Any) -> "Tokens":
        """Move to a device, or convert the values to a dtype, as ``Tensor.to`` does. Lengths stay integers."""
        values = self.values.to(*args, **kwargs)
        return Tokens(values, self.lengths.to(values.device))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> "Tokens":
        """Select a smaller batch; one number gives a batch of one, past the end an ``IndexError``."""
        if isinstance(rows, int):
            row = range(len(self))[rows]
            rows = slice(row, row + 1)
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows, device=self.values.device)
            rows = rows if rows.numel() else rows.long()  # an empty list becomes a float tensor
        return Tokens(self.values[rows], self.lengths[rows])
