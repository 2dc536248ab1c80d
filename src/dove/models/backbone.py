"""GPT-NeoX (Pythia) blocks used on embeddings instead of on words."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXModel

from dove.config import BackboneConfig


class Backbone(nn.Module):
    """Transformers' ``GPTNeoXModel`` without its word embedding, which the tokenizer never uses.

    Args:
        config: sizes of the blocks.
        causal: whether positions may only look back when no mask is given. The token decoder passes False.
    """

    def __init__(self, config: BackboneConfig, *, causal: bool):
        super().__init__()
        self.config = config
        self.model = GPTNeoXModel(
            GPTNeoXConfig(
                vocab_size=1,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_positions,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": config.rotary_fraction,
                },
                initializer_range=config.initializer_range,
                use_cache=False,
                bos_token_id=0,
                eos_token_id=0,
                is_causal=causal,
                attn_implementation="sdpa",
            )
        )
        del self.model.embed_in
        for layer in self.model.layers:
            # transformers sets this flag to True whatever the config says, and sdpa reads it where no mask is given.
            layer.attention.is_causal = causal

    def forward(
        self,
        embeddings: Float[Tensor, "B S H"],
        mask: Bool[Tensor, "#B 1 S T"] | None = None,
        positions: Int[Tensor, "#B S"] | None = None,
    ) -> Float[Tensor, "B S H"]:
        """Run the blocks and the final layer norm.

        Args:
            embeddings: input vectors.
            mask: True where the row may see the column; None for the backbone's own causal or full attention.
            positions: rotary positions; None counts from 0.
        """
        return self.model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions).last_hidden_state
