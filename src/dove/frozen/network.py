"""The interface of frozen image networks."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dove.errors import UserError


class FrozenNetwork(nn.Module, ABC):
    """Pretrained network that maps images to feature maps.

    It stays in eval mode whatever mode its parent is put into, and gradients flow to the images alone.

    Args:
        name: Name as in settings.
        layers: Its layers, with their weights.
        mean: Mean of red, green and blue that the network expects, for pixels in [0, 1].
        std: Their standard deviations.
        label: Short name in columns of reports, such as "mobilenet" in ``perceptual_mobilenet``; None for ``name``.
    """

    width: int  # Channels F of the last map
    min_image_size: int  # Side in pixels below which the network cannot be used
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        layers: nn.Module,
        mean: Sequence[float] = (0.485, 0.456, 0.406),  # of ImageNet
        std: Sequence[float] = (0.229, 0.224, 0.225),
        label: str | None = None,
    ) -> None:
        super().__init__()
        self.name, self.label = name, label or re.sub(r"\W+", "_", name)
        self.layers = layers.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Stay in eval mode."""
        return super().train(False)

    def maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Compute the feature maps, (B, C_l, h_l, w_l) each in float32, from shallow to deep.

        Args:
            images: (B, 3, H, W) in [-1, 1].

        Raises:
            UserError: If the images are smaller than ``min_image_size``.
        """
        if min(images.shape[-2:]) < self.min_image_size:
            raise UserError(
                f"images of {images.shape[-1]}x{images.shape[-2]} px are too small for {self.name}, which needs "
                f"{self.min_image_size} px; use larger images or another network"
            )
        pixels = ((images + 1) / 2 - self.mean) / self.std
        return [features.float() for features in self._features(pixels)]

    def pooled(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B F"]:
        """Average the last map over its positions."""
        return maps[-1].mean(dim=(2, 3))

    @abstractmethod
    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        """Compute the maps of normalised pixels, in any float type."""


class TappedNetwork(FrozenNetwork):
    """Layers that run one after the other; the outputs of those at the indices ``taps`` are the maps."""

    layers: nn.Sequential
    taps: tuple[int, ...]

    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        found = []
        for index, layer in enumerate(self.layers):
            pixels = layer(pixels)
            if index in self.taps:
                found.append(pixels)
        return found


@contextmanager
def loading(name: str, advice: str) -> Iterator[None]:
    """Report in one line why a library cannot load a network, and undo what it draws of random numbers.

    A run must not depend on initial weights, which libraries draw before the pretrained ones replace them.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except Exception as error:  # unknown names, no network, damaged files: each has its own kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load {name} ({reason}); {advice}") from error


def with_weights(make: Callable[[], Any], weights: Mapping[str, Tensor] | Iterable[Tensor], complaint: str) -> Any:
    """Make layers, in eval mode, with weights by name or in the order of the layers' own.

    Draws no random numbers, so that a run does not depend on its frozen networks.

    Raises:
        UserError: With ``complaint``, if the layers need other weights.
    """
    with torch.device("meta"):
        layers = make()
    try:
        state = weights if isinstance(weights, Mapping) else dict(zip(layers.state_dict(), weights, strict=True))
        layers.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(complaint) from error
    return layers.eval()


def fold_batch_norms(parent: nn.Module) -> None:
    """Fold each batch norm below a module, in eval mode, into the convolution in front of it."""
    children = list(parent.named_children())
    for (name, child), (following, norm) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(child, norm))
            setattr(parent, following, nn.Identity())
    for _, child in children:
        fold_batch_norms(child)
