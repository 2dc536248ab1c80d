"""Perceptual distances between images, by frozen classification networks."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.errors import UserError
from dove.frozen.names import WITH_FILE, split_perceptual
from dove.frozen.network import FrozenNetwork
from dove.frozen.registry import load_network
from dove.weight_files import check_finite, read_published


class PerceptualDistance(nn.Module):
    """Frozen distance between images. It stays in eval mode whatever mode its parent is put into."""

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay in eval mode."""
        return super().train(False)

    @abstractmethod
    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """Compute the distance per sample, 0 for equal images; both in [-1, 1], gradients into the reconstruction alone."""


class FeatureDistance(PerceptualDistance):
    """Distance of a frozen network's unit-normalised feature maps: the form of LPIPS without its learned calibration.

    Its numbers do not compare with LPIPS, nor those of two networks with each other.
    """

    def __init__(self, network: FrozenNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        """See `PerceptualDistance.forward`; in float32, in [0, 4], or [0, 2] where no feature is negative.

        Raises:
            UserError: If the images are too small for the network.
        """
        with torch.no_grad():
            targets = self.network.maps(images)
        return map_distance(self.network.maps(reconstruction), targets)


class MeanDistance(PerceptualDistance):
    """Mean of one or more distances with equal weights."""

    def __init__(self, distances: Sequence[PerceptualDistance]) -> None:
        super().__init__()
        self.distances = nn.ModuleList(distances)

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        return torch.stack([distance(reconstruction, images) for distance in self.distances]).mean(dim=0)


def map_distance(
    maps: Sequence[Float[Tensor, "B _ _ _"]], targets: Sequence[Float[Tensor, "B _ _ _"]]
) -> Float[Tensor, " B"]:
    """Compute the distance per sample of images from their feature maps, in order, (B, C_l, h_l, w_l) each.

    Per layer, both maps are scaled to unit length over channels, their squared difference is summed over channels and
    averaged over positions; the layers are averaged.
    """
    # Not x / sqrt(sum of squares): that has no gradient where every channel is zero.
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
        try:
            from lpips import LPIPS
        except ImportError as error:
            raise UserError("LPIPS needs the lpips package; run: pip install lpips") from error
        state = None if weights is None else read_published(Path(weights))
        try:
            # The package calls torchvision by a deprecated name, and draws weights even where a file replaces them.
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                self.network: nn.Module = LPIPS(net="vgg", pnet_rand=state is not None, verbose=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot get VGG-16's weights for LPIPS ({error}); give them as a file in torchvision's vgg16 layout"
            ) from error
        if state is not None:
            vgg = self.network.get_submodule("net")
            try:
                # Torchvision's features.N.* are the package's sliceS.N.*: the same layers, cut into stages.
                stages = {key: state[f"features.{key.split('.', 1)[1]}"].float() for key in vgg.state_dict()}
                vgg.load_state_dict(stages)
            except (KeyError, RuntimeError) as error:
                raise UserError(f"{weights} does not hold torchvision's vgg16; give weights in that layout") from error
            check_finite(Path(str(weights)), stages)
        self.requires_grad_(False).eval()

    def forward(
        self, reconstruction: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, " B"]:
        return self.network(reconstruction, images.detach()).flatten()


def make_perceptual(name: str, weights: str | Path | None = None) -> PerceptualDistance:
    """Make the perceptual distance of that name.

    Args:
        name: "lpips", a network of `dove.frozen.registry.load_network`, or several of these joined by "+" for their mean.
        weights: file for SqueezeNet or LPIPS's VGG-16; see the classes for what None means.

    Raises:
        UserError: If a name is unknown, the weights cannot be had, or a file is given that fits none or several.
    """
    names = split_perceptual(name)
    if weights is not None and sum(part in WITH_FILE for part in names) != 1:
        takes = "takes no weights file" if not set(names) & set(WITH_FILE) else "takes several weights files"
        raise UserError(f"perceptual network {name!r} {takes}, but got {weights}; change one of the two")
    files = [weights if part in WITH_FILE else None for part in names]
    distances = [
        LpipsPerceptual(file) if part == "lpips" else FeatureDistance(load_network(part, file))
        for part, file in zip(names, files, strict=True)
    ]
    return distances[0] if len(distances) == 1 else MeanDistance(distances)
