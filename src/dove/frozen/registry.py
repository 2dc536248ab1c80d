"""Frozen networks by name."""

from pathlib import Path

import torch

from dove.errors import UserError
from dove.frozen.efficientnet import EfficientNetLite0
from dove.frozen.mobilenet import MobileNetV2
from dove.frozen.names import KNOWN_NETWORKS
from dove.frozen.network import FrozenNetwork
from dove.frozen.squeezenet import SqueezeNet
from dove.frozen.timm_models import TimmNetwork
from dove.frozen.transformers_models import TransformersNetwork


def load_network(name: str, weights: str | Path | None = None) -> FrozenNetwork:
    """Load a frozen network, in float32 and channels last, which convolutions on CPUs run faster in.

    Args:
        name: "squeezenet", "efficientnet-lite0", "mobilenet-v2", "timm:MODEL" or "transformers:MODEL".
        weights: SqueezeNet's weights file; None for the one that DOVE_SQUEEZENET names. The others take no file.

    Raises:
        UserError: If the name is unknown, a package is missing, the weights cannot be had, or a file is given that the
            network does not take.
    """
    if name == "squeezenet":
        return SqueezeNet(weights).to(memory_format=torch.channels_last)
    if weights is not None:
        raise UserError(f"network {name!r} takes no weights file, but got {weights}; drop one of the two")
    match name.partition(":"):
        case ("efficientnet-lite0", "", ""):
            network: FrozenNetwork = EfficientNetLite0()
        case ("mobilenet-v2", "", ""):
            network = MobileNetV2()
        case ("timm", ":", model) if model:
            network = TimmNetwork(model)
        case ("transformers", ":", model) if model:
            network = TransformersNetwork(model)
        case _:
            raise UserError(f"unknown network {name!r}; choose {KNOWN_NETWORKS}")
    return network.to(memory_format=torch.channels_last)
