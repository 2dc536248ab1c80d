"""Image networks of the timm package."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from dove.errors import UserError
from dove.frozen.network import FrozenNetwork, loading


class TimmNetwork(FrozenNetwork):
    """Timm model that offers feature maps: one map per stage of a convolutional network, the last blocks of a ViT.

    A ViT's tokens come as grids without class and register tokens. Pixels are normalised as the model's own
    configuration says.

    Args:
        model: Name for ``timm.create_model``, such as ``resnet18.a1_in1k`` or ``local-dir:FOLDER``. Weights are
            downloaded where they are not in the cache.
    """

    def __init__(self, model: str) -> None:
        try:
            import timm
        except ImportError as error:
            raise UserError(f"timm:{model} needs timm; run: pip install 'dove-encoder[align]'") from error
        advice = (
            "check the name with timm.list_pretrained(), or give a folder with config.json and model.safetensors as "
            "timm:local-dir:FOLDER"
        )
        with loading(f"timm:{model}", advice):
            try:  # vision transformers take other image sizes than they were trained with on request alone
                network = timm.create_model(model, pretrained=True, features_only=True, dynamic_img_size=True)
            except TypeError:
                network = timm.create_model(model, pretrained=True, features_only=True)
        super().__init__(f"timm:{model}", network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        self.width = network.feature_info.channels()[-1]
        self.min_image_size = network.feature_info.reduction()[-1]

    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        return self.layers(pixels)
