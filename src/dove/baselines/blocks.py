"""Transformer and codebook on the unit sphere that TiTok and ALIT share. Parameters have the published names."""

from collections import OrderedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.config import TransformerConfig
from dove.models.transformer import attend
from dove.models.vqgan import Codebook


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, hidden: Float[Tensor, "B S H"], mask: Bool[Tensor, "#B 1 1 S"] | None) -> Float[Tensor, "B S H"]:
        """Attend to the positions where ``mask`` is True; None for all."""
        projected = F.linear(hidden, self.in_proj_weight, self.in_proj_bias)
        query, key, value = torch.unflatten(projected, 2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value, mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to its input."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, hidden: Float[Tensor, "B S H"], mask: Bool[Tensor, "#B 1 1 S"] | None) -> Float[Tensor, "B S H"]:
        """Apply attention and MLP; the mask is True for positions that may be seen, None for all."""
        hidden = hidden + self.attn(self.ln_1(hidden), mask)
        return hidden + self.mlp(self.ln_2(hidden))


class Transformer(nn.Module):
    """A stack of blocks without norms or embeddings around it."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.transformer = nn.ModuleList(Block(config.width, config.num_heads) for _ in range(config.num_layers))

    def run(
        self, hidden: Float[Tensor, "B S H"], mask: Bool[Tensor, "#B 1 1 S"] | None = None
    ) -> Float[Tensor, "B S H"]:
        """Run all blocks. The mask is True for positions that may be seen; None for all."""
        for block in self.transformer:
            hidden = block(hidden, mask)
        return hidden

    def layers(self, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "L B S H"]:
        """Run all blocks and return the output of each; all positions see each other."""
        outputs = [hidden := block(hidden, None) for block in self.transformer]
        return torch.stack(outputs)


def embedding(*shape: int) -> nn.Parameter:
    """Make a learned table or vector whose rows have about unit length at initialisation."""
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)


def initialise(model: nn.Module, config: TransformerConfig) -> None:
    """Initialise all linear maps and convolutions of a model as both papers do: truncated normal, without biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UnitCodebook(Codebook):
    """A codebook on the unit sphere: latents and entries are compared, and handed on, at unit length."""

    def entries(self) -> Float[Tensor, "V D"]:
        """Return the V entries at unit length."""
        return F.normalize(self.embedding.weight, dim=-1)

    def prepare(self, latents: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Bring latents to unit length."""
        return F.normalize(latents, dim=-1)
