"""Alignment of a tokenizer's hidden states and tokens with a frozen network (REPA, VA-VAE, GigaTok and MAETok gain so)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import DoveConfig
from dove.frozen.registry import load_network
from dove.losses.align import grid_alignment, pooled_alignment
from dove.models.token_generator import GeneratorOutput
from dove.tokens import Tokens
from dove.training.config import AlignConfig


class Alignment(nn.Module):
    """Linear heads that predict a frozen network's features from hidden states and from tokens."""

    def __init__(self, config: AlignConfig, model: DoveConfig):
        super().__init__()
        self.network = load_network(config.network, config.weights)
        self.enlarge, self.side = config.enlarge, model.vqgan.grid_size
        self.fixed, self.learned_tokens = model.prior_numbers, model.learned_tokens
        width = self.network.width
        inputs = {"grid": model.generator.hidden_size, "pooled": model.generator.hidden_size}
        inputs["tokens"] = model.learned_numbers
        self.heads = nn.ModuleDict({name: nn.Linear(numbers, width) for name, numbers in inputs.items()})

    def forward(
        self, output: GeneratorOutput, tokens: Tokens, images: Float[Tensor, "B 3 S S"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the cosine distances of grid, timestamps and learned numbers to the network's last map and its mean.

        The tokens are cut to the lengths that the images, in [-1, 1], were rebuilt from.
        """
        with torch.no_grad():
            size = images.shape[-1] * self.enlarge
            maps = self.network.maps(F.interpolate(images, size=size, mode="bilinear", align_corners=False))
            mean = self.network.pooled(maps)
        hidden = masked_mean(output.hidden, tokens.mask)
        with_learned = tokens.values[:, : self.learned_tokens, self.fixed :]
        learned = masked_mean(with_learned, tokens.mask[:, : self.learned_tokens])
        grid = self.heads["grid"](output.grid)
        return {
            "align_grid": grid_alignment(grid, maps[-1], (self.side, self.side)).mean(),
            "align_hidden": pooled_alignment(self.heads["pooled"](hidden), mean).mean(),
            "align_tokens": pooled_alignment(self.heads["tokens"](learned), mean).mean(),
        }


def masked_mean(values: Float[Tensor, "B k W"], mask: Bool[Tensor, "B k"]) -> Float[Tensor, "B W"]:
    """Average over each image's marked positions."""
    kept = mask[..., None].float()
    return (values.float() * kept).sum(1) / kept.sum(1)
