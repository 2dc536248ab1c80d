"""Frozen networks by name."""

from pathlib import Path

import torch

from dove.errors import UserError
from dove.frozen.efficientnet import EfficientNetLite0
from dove.frozen.mobilenet import MobileNetV2
from dove.frozen.names import KNOWN_NETWORKS, is_network
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
    if not is_network(name):
        raise UserError(f"unknown network {name!r}; choose {KNOWN_NETWORKS}")
    if weights is not None and name != "squeezenet":
        raise UserError(f"network {name!r} takes no weights file, but got {weights}; drop one of the two")
    library, _, model = name.partition(":")
    if name == "squeezenet":
        network: FrozenNetwork = SqueezeNet(weights)
    elif model:
        network = TimmNetwork(model) if library == "timm" else TransformersNetwork(model)
    else:
        network = MobileNetV2() if name == "mobilenet-v2" else EfficientNetLite0()
    return network.to(memory_format=torch.channels_last)
