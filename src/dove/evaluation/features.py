"""Hidden states of a tokenizer, for analyses."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.tokenizer import Dove


@torch.no_grad()
def hidden_grid_features(model: Dove, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "L B N H"]:
    """Compute the output of each of the token generator's L blocks at the N grid positions (row by row).

    Grid positions don't see timestamps, so none are run with them.
    """
    prefix = model.generator.embed(model.vqgan.encode(images))
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found.append(output)

    handles = [layer.register_forward_hook(keep) for layer in model.generator.transformer.layers]
    try:
        model.generator.transformer(prefix.embeddings)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)
