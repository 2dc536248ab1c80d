"""Attention of the language model while it trains on a CPU."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from dove.models.transformer import attend

NAME = "dove_matmul"  # Name under which transformers knows it


def matmul_attention(
    module: nn.Module,
    query: Float[Tensor, "B h S d"],
    key: Float[Tensor, "B h T d"],
    value: Float[Tensor, "B h T d"],
    attention_mask: Bool[Tensor, "#B 1 S T"] | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Float[Tensor, "B S h d"], None]:
    """Compute attention in transformers' attention interface by :func:`dove.models.transformer.attend`.

    Raises:
        ValueError: for what it does not compute: dropout, another scale, or a causal module without a mask.
    """
    usual = abs(scaling - query.shape[-1] ** -0.5) < 1e-6
    if dropout or not usual or (attention_mask is None and getattr(module, "is_causal", False)):
        raise ValueError("matmul attention has no dropout, no scale of its own and no built-in causal mask")
    groups = query.shape[1] // key.shape[1]
    key, value = (torch.repeat_interleave(part, groups, dim=1) for part in (key, value))
    return attend(query, key, value, attention_mask).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, matmul_attention)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
