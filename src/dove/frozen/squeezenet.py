"""SqueezeNet 1.0 from a weights file."""

import os
from pathlib import Path

from dove.errors import UserError
from dove.frozen.network import TappedNetwork, with_weights
from dove.weight_files import check_finite, read_published

SQUEEZENET_VARIABLE = "DOVE_SQUEEZENET"  # Environment variable that names the SqueezeNet file where no path is given


def squeezenet_at_hand() -> bool:
    """Tell whether the environment names SqueezeNet's weights."""
    return bool(os.environ.get(SQUEEZENET_VARIABLE))


class SqueezeNet(TappedNetwork):
    """SqueezeNet 1.0 without its classifier.

    Maps are taken in front of each of the three poolings and at the end (relu1, fire4, fire8, fire9: strides 2, 4, 8 and
    16), so that every resolution is used once, at its deepest. No feature is negative.

    Args:
        weights: Safetensors file in the layout of torchvision's ``squeezenet1_0``, any float type; the classifier may be
            missing. None for the file that the environment variable DOVE_SQUEEZENET names.

    Raises:
        UserError: If no file is named, or it is missing, damaged, or of another network.
    """

    width = 512
    min_image_size = 21  # Side in pixels below which the last pooling has nothing left

    taps = (1, 5, 10, 12)  # Indices of relu1, fire4, fire8 and fire9 in torchvision's ``features``

    def __init__(self, weights: str | Path | None = None) -> None:
        from torchvision.models import squeezenet1_0

        named = weights or os.environ.get(SQUEEZENET_VARIABLE)
        if not named:
            raise UserError(
                "SqueezeNet needs its weights, a safetensors file in torchvision's squeezenet1_0 layout: name it by "
                f"--loss.perceptual-weights, --loss.align.weights or the environment variable {SQUEEZENET_VARIABLE}, "
                "use efficientnet-lite0, whose weights a package holds, or train without: --loss.perceptual 0 "
                "--loss.perceptual-network none"
            )
        path = Path(named)
        state = {key: value.float() for key, value in read_published(path, "features.").items()}
        complaint = f"{path} does not hold torchvision's squeezenet1_0; give weights in that layout"
        layers = with_weights(lambda: squeezenet1_0().features, state, complaint)
        check_finite(path, state)
        super().__init__("squeezenet", layers)
