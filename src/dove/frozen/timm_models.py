"""Image networks of the timm package."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dove.errors import UserError
from dove.frozen.network import FrozenNetwork


class TimmNetwork(FrozenNetwork):
    """Timm model that offers feature maps: one map per stage of a convolutional network, the last blocks of a ViT.

    A ViT's tokens come as grids without class and register tokens. Pixels are normalised as the model's own
    configuration says.

    Args:
        model: Name for ``timm.create_model``, such as ``resnet18.a1_in1k`` or ``local-dir:FOLDER``. Weights are
            downloaded where they are not in the cache.
    """

    def __init__(self, model: str) -> None:
        network = _create_model(model)
        config = network.pretrained_cfg
        super().__init__(f"timm:{model}", config["mean"], config["std"])
        self.network = network
        self.width = network.feature_info.channels()[-1]
        self.min_image_size = network.feature_info.reduction()[-1]
        self.freeze()

    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        return self.network(pixels)


def _create_model(model: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm:{model} needs timm; run: pip install 'dove-encoder[align]'") from error
    # Initial weights are drawn before the pretrained ones replace them: a run must not depend on that.
    with torch.random.fork_rng(devices=[]):
        try:
            try:  # vision transformers take other image sizes than they were trained with on request alone
                return timm.create_model(model, pretrained=True, features_only=True, dynamic_img_size=True)
            except TypeError:
                return timm.create_model(model, pretrained=True, features_only=True)
        except Exception as error:  # unknown names, no network, damaged files: each has its own kind
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"cannot load timm:{model} ({reason}); check the name with timm.list_pretrained(), or give a folder with "
                "config.json and model.safetensors as timm:local-dir:FOLDER"
            ) from error
