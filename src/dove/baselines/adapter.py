"""Parts that the baselines share: a fixed length, and the reading of published checkpoints."""

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.checkpoint import load_weights
from dove.errors import UserError
from dove.lengths import LengthPolicy, parse_length_policy
from dove.tokenizer import fitting_images, fitting_tokens
from dove.tokens import Tokens
from dove.weight_files import read_published

Model = TypeVar("Model", bound=nn.Module)

TRAINING_ONLY = ("gan_losses.", "criterion.", "loss.")
"""Prefixes of the names of tensors that checkpoints hold for training alone."""
AVERAGED = "ema."  # Prefix of the names of the averaged weights, where a checkpoint holds a whole training state


class FixedLength(nn.Module):
    """A tokenizer that gives every image the same number K of tokens, of width D."""

    def __init__(self, image_size: int, max_tokens: int, token_dim: int):
        super().__init__()
        self.image_size, self.max_tokens, self.token_dim = image_size, max_tokens, token_dim
        self.token_counts = (max_tokens,)

    def quantized_values(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B K D"]:
        """Compute the codebook entries of images in [-1, 1]."""
        raise NotImplementedError

    def reconstruct_from(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1] up to overshoot, from tokens, with gradients."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Encode images to K tokens; see `Dove.encode`. K, "auto" and all policies that may give K are taken for it."""
        if parse_length_policy(num_tokens, self.max_tokens).positions(self.max_tokens) != self.max_tokens:
            raise self._refusal(f"num_tokens={str(num_tokens)!r}")
        values = self.quantized_values(fitting_images(images, self.image_size, self._device))
        return Tokens(values, torch.full((len(values),), self.max_tokens, device=values.device))

    @torch.no_grad()
    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from their K tokens; see `Dove.decode`."""
        if num_tokens not in (None, self.max_tokens):
            raise self._refusal(f"num_tokens={num_tokens}")
        tokens = fitting_tokens(tokens, None, self.max_tokens, self.token_dim, self._device)
        if not (tokens.lengths == self.max_tokens).all():
            raise self._refusal(f"token lengths {tokens.lengths.tolist()}")
        return self.reconstruct_from(tokens.values).clamp(-1, 1)

    @property
    def _device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    def _refusal(self, what: str) -> UserError:
        return UserError(f"{what} does not fit this model, which always uses {self.max_tokens} tokens; pass auto")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the model's tensors from a published checkpoint: the averaged ones where it has them, none of the losses'."""
    tensors = read_published(Path(path))
    averaged = {name.removeprefix(AVERAGED): tensor for name, tensor in tensors.items() if name.startswith(AVERAGED)}
    return {name: tensor for name, tensor in (averaged or tensors).items() if not name.startswith(TRAINING_ONLY)}


def build_loaded(build: Callable[[], Model], weights: Mapping[str, Tensor]) -> Model:
    """Build a model with these weights in place of random ones, in fp32, for evaluation."""
    with torch.device("meta"):
        model = build()
    load_weights(model.to_empty(device="cpu"), {name: tensor.float() for name, tensor in weights.items()}, "the file")
    return model.eval()
