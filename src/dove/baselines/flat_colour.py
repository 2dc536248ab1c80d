"""A picture as its mean colour: one token of three numbers."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.baselines.adapter import FixedLength
from dove.checkpoint import save_checkpoint
from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FlatColourConfig:
    """Settings of the mean colour as a tokenizer."""

    image_size: int = 64
    """Side S of the images, in pixels."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"image_size={self.image_size} must be at least 1")


class FlatColour(FixedLength):
    """Tokenizer whose only token is the mean colour, the best constant for the squared error."""

    def __init__(self, config: FlatColourConfig):
        super().__init__(config.image_size, max_tokens=1, token_dim=3)
        self.config = config
        self.scale = nn.Buffer(torch.ones(()))  # knows device and type, of which nothing else here does

    def quantized_values(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1 3"]:
        """Average the pixels of each image."""
        return images.mean((2, 3))[:, None]

    def reconstruct_from(self, values: Float[Tensor, "B 1 3"]) -> Float[Tensor, "B 3 S S"]:
        """Fill images with their colour."""
        return values[:, 0, :, None, None].expand(-1, -1, self.image_size, self.image_size)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write a checkpoint folder."""
        save_checkpoint(save_directory, self.config, self.state_dict())
