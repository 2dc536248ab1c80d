"""GPT-NeoX (Pythia) blocks on embeddings, with a KV cache.

Parameters have the names of transformers' ``GPTNeoXModel``, so its checkpoints load by name (all but the word embedding,
which a tokenizer does not use). Black et al., "GPT-NeoX-20B", 2022: attention and MLP in parallel, rotary positions on part
of each head.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.config import BackboneConfig

ROTARY_BASE = 10000.0

Rotation = tuple[Float[Tensor, "#B 1 S r"], Float[Tensor, "#B 1 S r"]]
"""Cosines and sines of the angles by which the first r dimensions of each head are rotated."""
KVCache = dict[int, tuple[Tensor, Tensor]]
"""Keys and values, (B, h, T, d), of the positions so far, by layer."""


def attend(
    query: Float[Tensor, "B h S d"],
    key: Float[Tensor, "B h T d"],
    value: Float[Tensor, "B h T d"],
    mask: Bool[Tensor, "#B 1 #S T"] | None = None,
) -> Float[Tensor, "B h S d"]:
    """Compute scaled dot-product attention; ``mask`` is True where a row may see a column.

    Training on a CPU takes plain matrix products: the backward of torch's fused kernel is several times slower there.
    """
    if not (torch.is_grad_enabled() and query.requires_grad and query.device.type == "cpu"):
        return F.scaled_dot_product_attention(query, key, value, mask)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -1e4)
    return torch.matmul(scores.softmax(-1), value)


def rotary_angles(positions: Int[Tensor, "#B S"], width: int) -> Rotation:
    """Compute cosines and sines of the rotation angles (Su et al., "RoFormer", 2021)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = positions[:, None, :, None].float() * ROTARY_BASE**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(states: Float[Tensor, "B h S d"], rotation: Rotation) -> Float[Tensor, "B h S d"]:
    """Apply a rotation to the first r dimensions of each head."""
    cosines, sines = (part.to(states.dtype) for part in rotation)
    width = cosines.shape[-1]
    rotated, passed = states[..., :width], states[..., width:]
    first, second = rotated.chunk(2, dim=-1)
    rotated = rotated * cosines + torch.cat([-second, first], dim=-1) * sines
    return torch.cat([rotated, passed], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden: Float[Tensor, "B S H"],
        rotation: Rotation,
        mask: Bool[Tensor, "#B 1 #S T"] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B S H"]:
        """Attend from ``hidden`` to itself and to what ``cache`` holds of this ``layer``, which it extends."""
        heads = self.query_key_value(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is not None:
            if layer in cache:
                key, value = torch.cat([cache[layer][0], key], dim=2), torch.cat([cache[layer][1], value], dim=2)
            cache[layer] = key, value
        return self.dense(attend(query, key, value, mask).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S H"]:
        """Apply both layers."""
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(hidden)))


class Block(nn.Module):
    """One layer: attention and MLP read the same residual stream, each behind its own layer norm."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(
        self,
        hidden: Float[Tensor, "B S H"],
        rotation: Rotation,
        mask: Bool[Tensor, "#B 1 #S T"] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B S H"]:
        """Add attention and MLP to the residual stream."""
        attended: Tensor = self.attention(self.input_layernorm(hidden), rotation, mask, cache, layer)
        return hidden + attended + self.mlp(self.post_attention_layernorm(hidden))


class Transformer(nn.Module):
    """A stack of GPT-NeoX blocks and the final layer norm."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size)
        self.rotary_width = int(config.hidden_size // config.num_heads * config.rotary_fraction)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        embeddings: Float[Tensor, "B S H"],
        mask: Bool[Tensor, "#B 1 #S T"] | None = None,
        positions: Int[Tensor, "#B S"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B S H"]:
        """Run the blocks and the final layer norm.

        Args:
            embeddings: input vectors of S positions.
            mask: True where a row may see a column of the T positions in cache and input; None sees all of them.
            positions: rotary positions; None counts from 0.
            cache: keys and values of earlier positions, extended by these.
        """
        if positions is None:
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        rotation = rotary_angles(positions, self.rotary_width)
        hidden = embeddings
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, rotation, mask, cache, number)
        return self.final_layer_norm(hidden)

    def hidden_layers(self, embeddings: Float[Tensor, "B S H"]) -> Float[Tensor, "L B S H"]:
        """Run the L blocks and return the output of each; all positions see each other and count from 0."""
        rotation = rotary_angles(torch.arange(embeddings.shape[1], device=embeddings.device)[None], self.rotary_width)
        hidden = embeddings
        return torch.stack([hidden := layer(hidden, rotation, None, None, 0) for layer in self.layers])
