"""The same weights and results with less to do, for models that are not trained any further.

Two things cost time beside the matrix products themselves: passes over memory that could be spared (here: sums and
activations in place, a vocabulary's scores in portions that fit a processor's cache), and positions whose hidden states
nobody reads (here: the grid's in the last layer, and the timestamps behind the last one needed). The image ends are in
:mod:`dove.models.inference_vqgan`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.models.backbone import Backbone
from dove.models.eos import EosScores, VocabularyEosHead
from dove.models.token_generator import GeneratorOutput, TokenGenerator


class Memory:
    """Keys and values of the positions so far, layer by layer, in room for all that may come."""

    def __init__(self, layers: int, capacity: int):
        self.capacity, self.length = capacity, 0
        self._rooms: list[list[Tensor]] = [[] for _ in range(layers)]

    def extend(
        self, layer: int, key: Float[Tensor, "B h S d"], value: Float[Tensor, "B h S d"]
    ) -> tuple[Float[Tensor, "B h T d"], Float[Tensor, "B h T d"]]:
        """Keep a layer's new keys and values; returns all it has."""
        rooms = self._rooms[layer]
        if not rooms:
            batch, heads, _, width = key.shape
            rooms += [key.new_empty(batch, heads, self.capacity, width) for _ in range(2)]
        end = self.length + key.shape[2]
        for room, new in zip(rooms, (key, value), strict=True):
            room[:, :, self.length : end] = new
        return rooms[0][:, :, :end], rooms[1][:, :, :end]


class InferenceBackbone(Backbone):
    """A ``Backbone`` whose blocks work in place, for inference alone; its parameters are those of the one it came from."""

    def forward(
        self,
        embeddings: Float[Tensor, "B S H"],
        mask: Bool[Tensor, "#B 1 S T"] | None = None,
        positions: Int[Tensor, "#B S"] | None = None,
    ) -> Float[Tensor, "B S H"]:
        hidden = embeddings.to(self.dtype)
        turns = self._turns(hidden, 0, positions)
        for layer in self.model.layers:
            query, key, value = self._projected(layer, hidden, turns)
            causal = mask is None and layer.attention.is_causal
            mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
            hidden = self._merged(layer, hidden, mixed)
        return self.model.final_layer_norm(hidden)

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are in."""
        return self.model.final_layer_norm.weight.dtype

    def remember(self, embeddings: Float[Tensor, "B S H"], capacity: int) -> Memory:
        """What later positions see of first ones that all see each other.

        Args:
            embeddings: of the first positions.
            capacity: how many positions there will be, these included.
        """
        hidden = embeddings.to(self.dtype)
        memory = Memory(len(self.model.layers), capacity)
        turns = self._turns(hidden, 0)
        last = len(self.model.layers) - 1
        for number, layer in enumerate(self.model.layers):
            query, key, value = self._projected(layer, hidden, turns)
            memory.extend(number, key, value)
            if number < last:  # behind the last keys and values there is nothing left that others see
                hidden = self._merged(layer, hidden, F.scaled_dot_product_attention(query, key, value))
        memory.length = hidden.shape[1]
        return memory

    def continue_from(
        self, memory: Memory, embeddings: Float[Tensor, "B S H"], mask: Bool[Tensor, "#B 1 S T"]
    ) -> Float[Tensor, "B S H"]:
        """Last hidden states of positions that follow those in memory, where they are kept, too.

        Args:
            memory: of all positions in front.
            embeddings: of the new ones.
            mask: True where a new position may see a column; columns are the positions in memory, then the new ones.
        """
        hidden = embeddings.to(self.dtype)
        turns = self._turns(hidden, memory.length)
        for number, layer in enumerate(self.model.layers):
            query, key, value = self._projected(layer, hidden, turns)
            keys, values = memory.extend(number, key, value)
            hidden = self._merged(layer, hidden, F.scaled_dot_product_attention(query, keys, values, mask))
        memory.length += hidden.shape[1]
        return self.model.final_layer_norm(hidden)

    def _turns(
        self, hidden: Float[Tensor, "B S H"], start: int, positions: Int[Tensor, "#B S"] | None = None
    ) -> tuple[Float[Tensor, "#B 1 S r"], Float[Tensor, "#B 1 S r"]]:
        """Cosines and sines of the rotary positions, by default ``start`` and on."""
        if positions is None:
            positions = torch.arange(start, start + hidden.shape[1], device=hidden.device)[None]
        cosine, sine = self.model.rotary_emb(hidden, positions)
        return cosine[:, None], sine[:, None]

    def _projected(
        self, layer: Any, hidden: Float[Tensor, "B S H"], turns: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, h, S, d) each, the first two turned by their positions."""
        projected = linear_in_place(layer.attention.query_key_value, layer.input_layernorm(hidden))
        query, key, value = projected.unflatten(2, (self.config.num_heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        for part in (query, key):
            turn_(part[..., : turns[0].shape[-1]], *turns)
        return query, key, value

    def _merged(
        self, layer: Any, hidden: Float[Tensor, "B S H"], mixed: Float[Tensor, "B h S d"]
    ) -> Float[Tensor, "B S H"]:
        """The block's output from what attention mixed: GPT-NeoX adds attention and MLP to the same input."""
        attention, mlp = layer.attention.dense, layer.mlp
        inside = mlp.act(linear_in_place(mlp.dense_h_to_4h, layer.post_attention_layernorm(hidden)))
        output = hidden + (attention.bias + mlp.dense_4h_to_h.bias)
        rows = output.view(-1, output.shape[-1])
        rows.addmm_(mixed.transpose(1, 2).flatten(2).flatten(0, 1), attention.weight.t())
        rows.addmm_(inside.flatten(0, 1), mlp.dense_4h_to_h.weight.t())
        return output


def linear_in_place(linear: nn.Linear, hidden: Float[Tensor, "*B H"]) -> Float[Tensor, "*B O"]:
    """What the layer gives, its bias added in place.

    On one core with bf16 matrix units torch's product of 4096 x 512 and 512 x 2048 numbers makes 740 GFLOP/s with a bias and
    1,046 without.
    """
    output = F.linear(hidden, linear.weight)
    output += linear.bias
    return output


def turn_(part: Float[Tensor, "B h S r"], cosine: Float[Tensor, "#B 1 S r"], sine: Float[Tensor, "#B 1 S r"]) -> None:
    """Rotary positions in place: dimension i and i + r/2 are the two coordinates of a point."""
    first, second = part.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1).mul_(sine)
    part.mul_(cosine).add_(turned)


class InferenceGenerator(TokenGenerator):
    """A ``TokenGenerator`` that reads the grid once and then generates tokens in chunks, as many as are needed.

    Equal to the parallel forward up to rounding, since nothing in front of a timestamp depends on it.
    """

    backbone: InferenceBackbone
    chunk: int
    """Tokens that are generated at once where their number is not known beforehand."""

    def forward(self, latents: Float[Tensor, "B N C"], num_tokens: int | None = None) -> GeneratorOutput:
        num_tokens = num_tokens or self.config.max_tokens
        return self.until(latents, num_tokens, lambda eos: eos.margin[:, 0] > torch.inf, at_least=num_tokens)

    def until(
        self,
        latents: Float[Tensor, "B N C"],
        num_tokens: int,
        settled: Callable[[EosScores], Bool[Tensor, " B"]],
        at_least: int = 1,
    ) -> GeneratorOutput:
        """See ``TokenGenerator.until``; stops behind the chunk with which all images are settled."""
        grid = self.latent_projection(latents) + self.grid_positions
        timestamps = self.timestamps(latents, num_tokens)
        first = grid.shape[1]
        memory = self.backbone.remember(grid, first + num_tokens)
        values: list[Tensor] = []
        eos: EosScores | None = None
        previous = grid[:, :0]
        precision = next(self.eos_head.parameters()).dtype
        end = 0
        while end < num_tokens:
            start, end = end, min(max(end + self.chunk, at_least), num_tokens)
            mask = self.mask[..., first + start : first + end, : first + end]
            hidden = self.backbone.continue_from(memory, timestamps[:, start:end], mask)
            values.append(self.token_projection(hidden))
            # A head may look at the position in front.
            seen = torch.cat([previous.to(hidden.dtype), hidden], dim=1)
            scores = self.eos_head(seen.to(precision)).since(previous.shape[1])
            eos = scores if eos is None else EosScores.cat([eos, scores])
            previous = hidden[:, -1:]
            if end < num_tokens and settled(eos).all():
                break
        assert eos is not None
        return GeneratorOutput(torch.cat(values, dim=1), eos)


class InferenceVocabularyEosHead(VocabularyEosHead):
    """A ``VocabularyEosHead`` that never has the scores of all words at all positions at once."""

    rows: int = 64
    """Positions at once: in bf16 6 MB of the paper's 50,304 scores, which a processor's cache can hold."""

    def forward(self, hidden: Float[Tensor, "B K H"]) -> EosScores:
        scored = [self._scored(rows) for rows in hidden.flatten(0, 1).split(self.rows)]
        probability, margin = (torch.cat(parts).view(hidden.shape[:2]) for parts in zip(*scored, strict=True))
        return EosScores(probability=probability, margin=margin)

    def _scored(self, rows: Float[Tensor, "R H"]) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Probability and margin of EOS; the words' scores are used up."""
        logits = self.projection(rows)
        eos = logits[:, self.eos_token_id].to(torch.float32, copy=True)
        logits[:, self.eos_token_id] = -torch.inf
        best = logits.amax(-1, keepdim=True)
        others = logits.sub_(best).exp_().sum(-1, dtype=torch.float32)
        margin = eos - best[:, 0].float()
        return (margin - others.log()).sigmoid(), margin
