"""Metrics by frozen networks: distances between two images, and features for a Frechet distance of two sets."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dove.checkpoint import read_card
from dove.errors import UserError, one_line
from dove.frozen.network import FrozenNetwork
from dove.losses.perceptual import LpipsPerceptual, map_distance
from dove.metrics import unit_range


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Output of a network for a batch of images, kept so that originals pass it once for all lengths."""

    maps: Sequence[Tensor] = ()  # Tensors that the distance compares
    pooled: Float[Tensor, "B F"] | None = None  # One vector per image, for the Frechet distance


class NetworkMetric(ABC):
    """Distance and Frechet distance by one network. A column that it does not offer has no name."""

    distance_name: str | None = None  # Column of its distance between two images
    frechet_name: str | None = None  # Column of the Frechet distance of its features
    width: int = 0  # Features per image
    min_image_size: int = 1  # Side in pixels below which the network cannot be used

    network: torch.nn.Module

    def keep(self, wanted: set[str]) -> None:
        """Offer only the columns in ``wanted``."""
        self.distance_name = self.distance_name if self.distance_name in wanted else None
        self.frechet_name = self.frechet_name if self.frechet_name in wanted else None

    def fit(self, image_size: int, images: int, optional: set[str], *, allow_few_images: bool) -> None:
        """Check the images; take an optional Frechet distance away that they are too few for, said on stderr."""
        columns = {name for name in (self.distance_name, self.frechet_name) if name}
        if image_size < self.min_image_size:
            raise UserError(
                f"images of {image_size} px are too small for {', '.join(sorted(columns))}, whose network needs "
                f"{self.min_image_size} px; leave these metrics out"
            )
        if self.frechet_name is None or allow_few_images or images > self.width:
            return
        few = f"{self.frechet_name} of {images} images says little: its {self.width} features need at least {self.width + 1}"
        if self.frechet_name not in optional:
            raise UserError(f"{few} images; pass more images, leave this metric out, or insist with --allow-few-images")
        print(f"left out: {few} images", file=sys.stderr)
        self.frechet_name = None

    @abstractmethod
    def features(self, images: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """Compute the features of images in [-1, 1]."""

    def distance(self, reconstruction: ImageFeatures, images: ImageFeatures) -> Float[Tensor, " B"]:
        """Compute the distance of each image to its original; 0 for equal ones."""
        return map_distance(reconstruction.maps, images.maps)


class FeatureMetric(NetworkMetric):
    """Distance of unit-normalised maps of a frozen network, and its last map averaged over positions.

    Images pass the network at their own size, so numbers of different image sizes do not compare.
    """

    def __init__(self, network: FrozenNetwork, device: torch.device) -> None:
        self.network: FrozenNetwork = network.to(device)
        self.distance_name = f"perceptual_{network.label}"
        self.frechet_name = f"fd_{network.label}"
        self.width = network.width
        self.min_image_size = network.min_image_size

    @torch.inference_mode()
    def features(self, images: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """See `NetworkMetric.features`."""
        maps = self.network.maps(images.contiguous(memory_format=torch.channels_last))
        return ImageFeatures(maps, self.network.pooled(maps))


def loss_networks(folder: Path) -> str | None:
    """Find out which frozen networks a checkpoint's losses used, joined by "+": their distances flatter it.

    Its card says so under ``loss_networks``, else its config.json where it predicts a perceptual distance; None without.
    """
    if named := read_card(folder).get("loss_networks"):
        return "+".join(map(str, named))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    predicted = config.get("quality_perceptual", "none")
    return None if predicted == "none" else str(predicted)


class LpipsMetric(NetworkMetric):
    """LPIPS of VGG-16; weights from a file, or None to let torchvision download them."""

    distance_name = LpipsPerceptual.metric_name

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        self.network = LpipsPerceptual(weights).to(device)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """Keep the images themselves: the package compares nothing else."""
        return ImageFeatures([images])

    @torch.inference_mode()
    def distance(self, reconstruction: ImageFeatures, images: ImageFeatures) -> Float[Tensor, " B"]:
        """See `NetworkMetric.distance`."""
        return self.network(*reconstruction.maps, *images.maps)


class InceptionMetric(NetworkMetric):
    """FID's Inception v3, as ``pytorch-fid`` builds it; weights from a file, or None to let it download them.

    Images are rounded to 8 bits first, as if they had been saved: FID is defined on image files.
    """

    frechet_name = "fid"
    width = 2048

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        try:
            from pytorch_fid import inception
        except ImportError as error:
            raise UserError("FID needs the pytorch-fid package; run: pip install pytorch-fid") from error
        if weights is not None and not weights.is_file():
            raise UserError(f"no weights file at {weights}; check the path")
        download = inception.load_state_dict_from_url  # the library knows only its own address
        given = (
            download if weights is None else lambda *_, **__: torch.load(weights, map_location="cpu", weights_only=True)
        )
        try:
            with patch.object(inception, "load_state_dict_from_url", given):
                self.network = inception.InceptionV3().eval()
        except Exception as error:  # each kind of damage raises its own
            if weights is not None:
                raise UserError(f"{weights} does not hold FID's Inception weights; download it again") from error
            raise UserError(
                f"cannot download FID's Inception weights ({one_line(error)}); get {inception.FID_WEIGHTS_URL} on a machine "
                "with network and pass the file as --inception-weights"
            ) from error
        self.network.to(device)

    @torch.inference_mode()
    def features(self, images: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """See `NetworkMetric.features`."""
        pixels = images.clamp(-1, 1).add(1).mul(127.5).round().div(255)
        return ImageFeatures(pooled=self.network(pixels)[0].flatten(1))


class DreamSimMetric(NetworkMetric):
    """DreamSim, by the package ``dreamsim``: three networks tuned to human judgements, on images scaled to 224 px.

    Its weights are downloaded to a folder if they are not there.
    """

    distance_name = "dreamsim"

    def __init__(self, folder: Path, device: torch.device) -> None:
        try:
            from dreamsim import dreamsim
        except ImportError as error:
            raise UserError("DreamSim needs its package; run: pip install 'dove-encoder[dreamsim]'") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.network, _ = dreamsim(pretrained=True, device=str(device), cache_dir=str(folder))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot load DreamSim's weights ({one_line(error)}); run this once with network, or copy them to {folder}"
            ) from error

    @torch.inference_mode()
    def features(self, images: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """See `NetworkMetric.features`."""
        pixels = F.interpolate(unit_range(images), size=(224, 224), mode="bicubic", antialias=True)
        embed: Any = self.network.embed
        return ImageFeatures([embed(pixels.clamp(0, 1))])

    def distance(self, reconstruction: ImageFeatures, images: ImageFeatures) -> Float[Tensor, " B"]:
        """Compute one minus the cosine of both embeddings, (B,)."""
        return 1 - F.cosine_similarity(reconstruction.maps[0], images.maps[0], dim=-1)
