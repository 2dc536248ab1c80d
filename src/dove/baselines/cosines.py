"""The cosine transform of the whole picture as a tokenizer: nothing learned, lengths exact by Parseval."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.checkpoint import save_checkpoint
from dove.errors import UserError
from dove.lengths import LengthPolicy, parse_length_policies
from dove.models.eos import EosScores, scores_from_quality
from dove.models.prior import CosinePrior
from dove.tokenizer import cut_by_policy, fitting_images, fitting_tokens
from dove.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class CosinesConfig:
    """Settings of the cosine transform as a tokenizer."""

    image_size: int = 64
    """Side S of the images, in pixels."""
    max_tokens: int = 64
    """Capacity K."""
    token_dim: int = 256
    """Width D of a token."""
    quality_target: float = 25.0
    """PSNR in dB at which ``auto`` ends a sequence."""

    def __post_init__(self) -> None:
        if min(self.image_size, self.max_tokens, self.token_dim) < 1:
            raise UserError(f"sizes of the cosine transform must be at least 1; got {self}")


class Cosines(nn.Module):
    """Tokenizer without learned parameters: bands of the picture's cosine transform, ordered by variance."""

    def __init__(self, config: CosinesConfig):
        super().__init__()
        self.config = config
        self.image_size, self.max_tokens = config.image_size, config.max_tokens
        self.token_counts = tuple(range(1, config.max_tokens + 1))
        self.transform = CosinePrior(config.image_size, config.max_tokens, config.token_dim, 0)
        self.requires_grad_(False)

    @classmethod
    def fit(cls, config: CosinesConfig, images: Float[Tensor, "M 3 S S"]) -> "Cosines":
        """Make the tokenizer for images like those of a sample, in [-1, 1].

        Raises:
            UserError: for too few images, or images of another size.
        """
        model = cls(config)
        model.transform.fit(fitting_images(images, config.image_size, model.transform.mean.device))
        return model.eval()

    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Encode images; see `Dove.encode`. The lengths ``auto``, ``psnr>=x`` and ``budget n`` are exact."""
        return self.encode_each(images, [num_tokens])[0]

    @torch.no_grad()
    def encode_each(self, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
        """Encode the same images by several length policies; see `Dove.encode_each`."""
        policies = parse_length_policies(requests, self.max_tokens)
        images = fitting_images(images, self.image_size, self.transform.mean.device)
        values, eos = self.score_lengths(images)
        return [
            cut_by_policy(
                policy, eos[: policy.positions(self.max_tokens)], values, images, self.max_tokens, self.decode
            )
            for policy in policies
        ]

    predicts_quality = True

    @torch.no_grad()
    def score_lengths(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B K D"], EosScores]:
        """Encode images in [-1, 1] to all K tokens, with the scores of each number of them; their PSNR is exact."""
        code = self.transform.encode(images.to(self.transform.mean))
        return code.fixed, scores_from_quality(code.quality, self.config.quality_target)

    @torch.no_grad()
    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from tokens; see `Dove.decode`."""
        device = self.transform.mean.device
        tokens = fitting_tokens(tokens, num_tokens, self.max_tokens, self.config.token_dim, device)
        return self.transform.picture(tokens.trim()).clamp(-1, 1)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write a checkpoint folder."""
        save_checkpoint(save_directory, self.config, self.state_dict())
