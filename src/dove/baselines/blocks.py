"""The pre-norm transformer and the codebook that TiTok and ALIT share. Parameter names are the published ones."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.config import TransformerConfig
from dove.models.transformer import attend

COMMITMENT = 0.25
"""Weight of the pull on the latents beside the pull on the codebook."""


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
        """The mask is True for positions that may be seen; None for all."""
        projected = F.linear(hidden, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
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
        hidden = hidden + self.attn(self.ln_1(hidden), mask)
        return hidden + self.mlp(self.ln_2(hidden))


class Transformer(nn.Module):
    """The blocks alone; norms and embeddings are their owners' matter."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.transformer = nn.ModuleList(Block(config.width, config.num_heads) for _ in range(config.num_layers))

    def run(
        self, hidden: Float[Tensor, "B S H"], mask: Bool[Tensor, "#B 1 1 S"] | None = None
    ) -> Float[Tensor, "B S H"]:
        """All blocks in turn. The mask is True for positions that may be seen."""
        for block in self.transformer:
            hidden = block(hidden, mask)
        return hidden


def embedding(*shape: int) -> nn.Parameter:
    """A learned table or vector whose rows start with unit length."""
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)


def initialise(module: nn.Module) -> None:
    """The narrow start of linear maps and convolutions that both papers use; for ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Quantized:
    """Codebook entries in place of latents.

    Attributes:
        values: the entries, with the gradient of the latents they stand for.
        ids: which entries.
        loss: mean over batch, positions and channels of the codebook and the commitment loss.
        latents: as they were compared with the entries.
    """

    values: Float[Tensor, "B L D"]
    ids: Int[Tensor, "B L"]
    loss: Float[Tensor, ""]
    latents: Float[Tensor, "B L D"]


class Codebook(nn.Module):
    """Nearest-neighbour quantisation."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)

    @property
    def size(self) -> int:
        """Number V of entries."""
        return self.embedding.num_embeddings

    def entries(self) -> Float[Tensor, "V D"]:
        """What latents are replaced by."""
        return self.embedding.weight

    def prepare(self, latents: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The latents as they are compared with the entries."""
        return latents

    def lookup(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The entries of these ids."""
        return F.embedding(ids, self.entries())

    def forward(self, latents: Float[Tensor, "B L D"]) -> Quantized:
        """The entries nearest to the latents."""
        latents, entries = self.prepare(latents.float()), self.entries()
        # |z - e|^2 without |z|^2, which is the same for all entries
        ids = (entries.square().sum(1) - 2 * latents @ entries.T).argmin(-1)
        values = F.embedding(ids, entries)
        loss = F.mse_loss(values, latents.detach()) + COMMITMENT * F.mse_loss(latents, values.detach())
        return Quantized(latents + (values - latents).detach(), ids, loss, latents)


class UnitCodebook(Codebook):
    """A codebook on the unit sphere: latents and entries are compared, and handed on, at unit length."""

    def entries(self) -> Float[Tensor, "V D"]:
        return F.normalize(self.embedding.weight, dim=-1)

    def prepare(self, latents: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return F.normalize(latents, dim=-1)
