"""Frozen networks that judge images: distances between two images, and features for a Frechet distance of two sets."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from dove.errors import UserError
from dove.losses.perceptual import LpipsPerceptual, SqueezeNetPerceptual


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network says about a batch of images, kept so that originals are measured once for all lengths."""

    maps: Sequence[Tensor] = ()
    """What its distance compares."""
    features: Float[Tensor, "B F"] | None = None
    """One vector per image, for the Frechet distance."""


class Judge(ABC):
    """A frozen network. What it doesn't offer has no name."""

    distance_name: str | None = None
    """Column of its distance between two images."""
    frechet_name: str | None = None
    """Column of the Frechet distance of its features."""
    width: ClassVar[int] = 0
    """Features per image."""

    network: torch.nn.Module

    def keep(self, wanted: set[str]) -> None:
        """Offer only the columns in ``wanted``."""
        self.distance_name = self.distance_name if self.distance_name in wanted else None
        self.frechet_name = self.frechet_name if self.frechet_name in wanted else None

    def sha256(self) -> str:
        """Of the network's weights."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @abstractmethod
    def measure(self, images: Float[Tensor, "B 3 H W"]) -> Measured:
        """Measure images in [-1, 1]."""

    def distance(self, reconstruction: Measured, images: Measured) -> Float[Tensor, " B"]:
        """Distance of each image to its original; 0 for equal ones."""
        raise NotImplementedError(f"{type(self).__name__} has no distance")


class SqueezeNetJudge(Judge):
    """SqueezeNet 1.0, from a file or the one that DOVE_SQUEEZENET names: the distance of unit-normalised maps, and its
    last maps averaged over positions.

    Images are judged at their own size, so numbers of different image sizes don't compare.
    """

    distance_name = SqueezeNetPerceptual.metric_name
    frechet_name = "fd_squeezenet"
    width = 512

    def __init__(self, weights: Path | None, device: torch.device):
        # Channels last is twice as quick on CPUs.
        network = SqueezeNetPerceptual(weights).to(device)
        self.network: SqueezeNetPerceptual = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def measure(self, images: Float[Tensor, "B 3 H W"]) -> Measured:
        maps = self.network.maps(images.contiguous(memory_format=torch.channels_last))
        return Measured(maps, maps[-1].mean(dim=(2, 3)))

    def distance(self, reconstruction: Measured, images: Measured) -> Float[Tensor, " B"]:
        return self.network.distance(reconstruction.maps, images.maps)


class LpipsJudge(Judge):
    """LPIPS of VGG-16; weights from a file, or None to let torchvision download them."""

    distance_name = LpipsPerceptual.metric_name

    def __init__(self, weights: Path | None, device: torch.device):
        self.network = LpipsPerceptual(weights).to(device)

    def measure(self, images: Float[Tensor, "B 3 H W"]) -> Measured:
        return Measured([images])

    @torch.inference_mode()
    def distance(self, reconstruction: Measured, images: Measured) -> Float[Tensor, " B"]:
        return self.network(*reconstruction.maps, *images.maps)


class InceptionJudge(Judge):
    """The Inception v3 of FID, as ``pytorch-fid`` builds it; weights from a file, or None to let it download them.

    Images are rounded to 8 bits first, as if they had been saved: FID is a number of files.
    """

    frechet_name = "fid"
    width = 2048

    def __init__(self, weights: Path | None, device: torch.device):
        self.network = _inception(weights).to(device)

    @torch.inference_mode()
    def measure(self, images: Float[Tensor, "B 3 H W"]) -> Measured:
        pixels = images.clamp(-1, 1).add(1).mul(127.5).round().div(255)
        return Measured(features=self.network(pixels)[0].flatten(1))


def _inception(weights: Path | None) -> torch.nn.Module:
    try:
        from pytorch_fid import inception
    except ImportError as error:
        raise UserError("FID needs the pytorch-fid package; run: pip install pytorch-fid") from error
    if weights is None:
        try:
            return inception.InceptionV3().eval()
        except OSError as error:
            raise UserError(
                f"cannot download FID's Inception weights ({error}); get {inception.FID_WEIGHTS_URL} on a machine with "
                "network and pass the file as --inception-weights"
            ) from error
    if not weights.is_file():
        raise UserError(f"no weights file at {weights}; check the path")
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # The library knows only its own address; what it would have downloaded is handed to it.
        with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state):
            return inception.InceptionV3().eval()
    except Exception as error:  # each kind of damage raises its own
        raise UserError(f"{weights} does not hold FID's Inception weights; download it again") from error
