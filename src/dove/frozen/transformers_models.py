"""Vision models of the transformers package."""

import inspect
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dove.errors import UserError
from dove.frozen.network import FrozenNetwork, loading

DEPTHS = 4  # Number of maps, at equal distances in depth; the last is the model's output


class TransformersNetwork(FrozenNetwork):
    """Vision model of transformers, or the vision tower of a model of images and text.

    A ViT's tokens become grids without class and register tokens. Pixels are normalised as the image processor beside
    the model says.

    Args:
        model: Hub id such as ``facebook/dinov2-small``, or a folder.
    """

    def __init__(self, model: str) -> None:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin

        advice = (
            "give a hub id within reach, or a folder with config.json, model.safetensors and preprocessor_config.json"
        )
        with loading(f"transformers:{model}", advice):
            network = AutoModel.from_pretrained(model, dtype=torch.float32)
            processor, _ = ImageProcessingMixin.get_image_processor_dict(model)
        normalised = processor.get("do_normalize", True)
        mean = processor.get("image_mean", (0.5, 0.5, 0.5)) if normalised else (0.0, 0.0, 0.0)
        std = processor.get("image_std", (0.5, 0.5, 0.5)) if normalised else (1.0, 1.0, 1.0)
        super().__init__(f"transformers:{model}", getattr(network, "vision_model", network), mean, std)
        self.patch_size: int | None = getattr(self.layers.config, "patch_size", None)
        self.min_image_size = self.patch_size or 32
        self._options = {"output_hidden_states": True}
        if "interpolate_pos_encoding" in inspect.signature(self.layers.forward).parameters:
            self._options["interpolate_pos_encoding"] = True
        side = 2 * self.min_image_size
        with torch.no_grad():
            self.width = self.maps(torch.zeros(1, 3, side, side))[-1].shape[1]

    def _features(self, pixels: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        output = self.layers(pixel_values=pixels, **self._options)
        states = list(getattr(output, "reshaped_hidden_states", None) or output.hidden_states or ())
        if len(states) < 2:
            raise UserError(f"{self.name} gives no hidden states; choose another model")
        if output.last_hidden_state.shape == states[-1].shape:
            states[-1] = output.last_hidden_state  # behind the final norm
        depth = len(states) - 1  # the first are embeddings
        chosen = sorted({-(-depth * step // DEPTHS) for step in range(1, DEPTHS + 1)})
        return [self._grid(states[index], pixels) for index in chosen]

    def _grid(self, state: Tensor, pixels: Tensor) -> Float[Tensor, "B _ _ _"]:
        if state.ndim == 4:
            return state
        patch = self.patch_size or 1
        rows, columns = (side // patch for side in pixels.shape[-2:])
        if state.shape[1] < rows * columns:
            raise UserError(
                f"{self.name}'s {state.shape[1]} tokens are no grid of {rows}x{columns}; choose another model"
            )
        return state[:, -rows * columns :].transpose(1, 2).reshape(len(state), -1, rows, columns)
