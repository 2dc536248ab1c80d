"""Perceptual distances: how different two images look to a frozen classification network."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dove.errors import UserError

PerceptualName = Literal["none", "squeezenet", "lpips"]
SQUEEZENET_VARIABLE = "DOVE_SQUEEZENET"
"""Environment variable that names the SqueezeNet file where no path is given."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class PerceptualDistance(nn.Module):
    """A frozen distance between images. It stays in eval mode whatever mode its parent is put into."""

    metric_name: ClassVar[str]
    """What reports call the number."""

    def freeze(self) -> None:
        """Take every parameter out of training; subclasses call it once their network stands."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay in eval mode."""
        return super().train(False)

    @abstractmethod
    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """The distance per sample, (B,), 0 for equal images.

        Args:
            reconstruction: (B, 3, H, W) in [-1, 1]; gradients flow into it.
            images: (B, 3, H, W) in [-1, 1]; no gradient flows into them.
        """


class NoPerceptual(PerceptualDistance):
    """The distance of a training without a perceptual network: zeros, nothing computed."""

    metric_name = "perceptual_none"

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """Zeros, (B,)."""
        return torch.zeros(len(images), device=images.device)


class SqueezeNetPerceptual(PerceptualDistance):
    """Distance of unit-normalised SqueezeNet 1.0 features: the form of LPIPS without its learned calibration.

    Features are taken in front of each of the three poolings and at the end (relu1, fire4, fire8, fire9: strides 2, 4,
    8 and 16), so every resolution is heard once, at its deepest. Per layer, both maps are scaled to unit length over
    channels, their squared difference is summed over channels (0 to 2, as no feature is negative) and averaged over
    positions; the layers are averaged. The numbers do not compare with LPIPS, hence a name of their own.

    Args:
        weights: A safetensors file in the layout of torchvision's ``squeezenet1_0``, any float type; the classifier may
            be missing. None for the file that the environment variable DOVE_SQUEEZENET names.

    Raises:
        UserError: If no file is named, or it is missing, damaged, or of another network.
    """

    metric_name = "perceptual_squeezenet"
    mean: Tensor
    std: Tensor
    min_image_size = 21
    """Side in pixels below which the last pooling has nothing left."""

    _taps = (1, 5, 10, 12)
    """Indices of relu1, fire4, fire8 and fire9 in torchvision's ``features``."""

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.features = _squeezenet_features(_squeezenet_path(weights))
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.freeze()

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """See `PerceptualDistance.forward`; in float32, in [0, 2].

        Raises:
            UserError: If the images are smaller than ``min_image_size``.
        """
        with torch.no_grad():
            targets = self.maps(images)
        return self.distance(self.maps(reconstruction), targets)

    def maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The tapped feature maps, (B, C_l, h_l, w_l) each, of images in [-1, 1].

        Raises:
            UserError: If the images are smaller than ``min_image_size``.
        """
        if min(images.shape[-2:]) < self.min_image_size:
            raise UserError(
                f"images of {images.shape[-1]}x{images.shape[-2]} px are too small for the SqueezeNet distance, which "
                f"needs {self.min_image_size} px; go without a perceptual network"
            )
        x = ((images + 1) / 2 - self.mean) / self.std
        found = []
        for index, stage in enumerate(self.features):
            x = stage(x)
            if index in self._taps:
                found.append(x.float())
        return found

    @staticmethod
    def distance(
        maps: Sequence[Float[Tensor, "B _ _ _"]], targets: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> Float[Tensor, " B"]:
        """The distance per sample, (B,), of images whose ``maps`` are at hand."""
        # Not x / sqrt(sum of squares): that has no gradient where every channel is silent.
        distances = [
            (F.normalize(layer, dim=1, eps=1e-8) - F.normalize(target, dim=1, eps=1e-8))
            .square()
            .sum(dim=1)
            .mean(dim=(1, 2))
            for layer, target in zip(maps, targets, strict=True)
        ]
        return torch.stack(distances).mean(dim=0)


class LpipsPerceptual(PerceptualDistance):
    """LPIPS with VGG-16, by the ``lpips`` package, which brings the calibration but not VGG's own weights.

    Args:
        weights: VGG-16's weights in torchvision's layout, safetensors or ``.pth``. None to let torchvision download
            them or find them in its cache.

    Raises:
        UserError: If the package is missing, or the weights are missing, damaged, of another network or out of reach.
    """

    metric_name = "lpips"

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.network = _lpips_network(None if weights is None else Path(weights))
        self.freeze()

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """See `PerceptualDistance.forward`."""
        return self.network(reconstruction, images.detach()).flatten()


def make_perceptual(name: str, weights: str | Path | None = None) -> PerceptualDistance:
    """The perceptual distance of that name.

    Args:
        name: "none", "squeezenet" or "lpips".
        weights: The network's weights file; see the classes for what None means.

    Raises:
        UserError: If the name is unknown, the weights cannot be had, or "none" is given weights.
    """
    match name:
        case "none" if weights is not None:
            raise UserError(f"perceptual network 'none' takes no weights, but got {weights}; drop one of the two")
        case "none":
            return NoPerceptual()
        case "squeezenet":
            return SqueezeNetPerceptual(weights)
        case "lpips":
            return LpipsPerceptual(weights)
    raise UserError(f"unknown perceptual network {name!r}; choose one of {', '.join(get_args(PerceptualName))}")


def _squeezenet_path(weights: str | Path | None) -> Path:
    found = weights or os.environ.get(SQUEEZENET_VARIABLE)
    if not found:
        raise UserError(
            "the SqueezeNet distance needs the network's weights; give a safetensors file in torchvision's "
            f"squeezenet1_0 layout as the perceptual weights or in the environment variable {SQUEEZENET_VARIABLE}, "
            "or train without: --loss.perceptual 0 --loss.perceptual-network none"
        )
    return Path(found)


def _squeezenet_features(path: Path) -> nn.Sequential:
    """SqueezeNet 1.0 without its classifier, in float32."""
    from torchvision.models import squeezenet1_0

    state = {
        key.removeprefix("features."): value.float()
        for key, value in _read_weights(path).items()
        if key.startswith("features.")
    }
    with torch.device("meta"):  # draws no random numbers, so that a run does not depend on its perceptual network
        features: nn.Sequential = squeezenet1_0().features
    try:
        features.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold torchvision's squeezenet1_0; give weights in that layout") from error
    _check_finite(path, state)
    return features


def _lpips_network(path: Path | None) -> nn.Module:
    """The ``lpips`` package's VGG network, from a file or from torchvision's download."""
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise UserError("LPIPS needs the lpips package; run: pip install lpips") from error
    state = None if path is None else _read_weights(path)
    try:
        # The package calls torchvision by a deprecated name, and draws weights even where a file replaces them.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            network = LPIPS(net="vgg", pnet_rand=state is not None, verbose=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot get VGG-16's weights for LPIPS ({error}); give them as a file in torchvision's vgg16 layout"
        ) from error
    if path is not None and state is not None:
        _load_vgg(network.net, path, state)
    return network


def _load_vgg(network: nn.Module, path: Path, state: dict[str, Tensor]) -> None:
    """Put torchvision's ``features.N.*`` into the package's ``sliceS.N.*``: the same layers, cut into stages."""
    try:
        stages = {key: state[f"features.{key.split('.', 1)[1]}"].float() for key in network.state_dict()}
        network.load_state_dict(stages)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path} does not hold torchvision's vgg16; give weights in that layout") from error
    _check_finite(path, stages)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A flat state dict; nothing that a file could make us run is loaded."""
    if not path.is_file():
        raise UserError(f"no weights file at {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own kinds, pickle's among them
        raise UserError(f"{path} is damaged or no weights file; download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} does not hold a flat state dict; give one in torchvision's layout")
    return state


def _check_finite(path: Path, state: dict[str, Tensor]) -> None:
    if not all(value.isfinite().all() for value in state.values()):
        raise UserError(f"{path} is damaged: some of its weights are not finite; download it again")
