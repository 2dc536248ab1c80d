"""The training attention against transformers' sdpa attention."""

import pytest
import torch

from dove.config import BackboneConfig
from dove.models.attention import matmul_attention, use_attention_for
from dove.models.backbone import Backbone
from dove.models.token_generator import prefix_mask

CONFIG = BackboneConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_positions=32)


@pytest.mark.parametrize("causal", [True, False])
def test_outputs_and_gradients_equal_sdpa(causal: bool) -> None:
    torch.manual_seed(0)
    backbone = Backbone(CONFIG, causal=causal)
    mask = prefix_mask(5, 7) if causal else None
    results = []
    for training in (False, True):
        use_attention_for(backbone, torch.device("cpu"), training=training)
        embeddings = torch.ones(2, 12, 32).cumsum(1).sin().requires_grad_()
        output = backbone(embeddings, mask)
        output.square().sum().backward()
        results.append((output.detach(), embeddings.grad))
    for ours, reference in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_a_causal_module_needs_a_mask() -> None:
    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="mask"):
        matmul_attention(Backbone(CONFIG, causal=True).model.layers[0].attention, query, query, query, None, 1.0)
