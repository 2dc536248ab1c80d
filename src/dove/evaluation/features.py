"""Hidden states of a tokenizer, for whoever looks inside it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.tokenizer import Dove


@torch.no_grad()
def hidden_grid_features(model: Dove, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "L B N H"]:
    """What each of the token generator's L blocks makes of the N grid positions (row by row).

    Grid positions don't see timestamps, so a single one is run with them.

    Args:
        model: the tokenizer.
        images: pixels in [-1, 1], on the model's device.
    """
    latents = model.latents(images)
    positions = latents.shape[1]
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        found.append(hidden[:, :positions])

    handles = [layer.register_forward_hook(keep) for layer in model.generator.backbone.model.layers]
    try:
        model.generator.hidden_states(latents, 1)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)
