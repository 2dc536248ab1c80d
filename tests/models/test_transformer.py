"""Parity of the transformer with transformers' GPTNeoXModel, which lends its parameter names."""

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXModel

from dove.config import BackboneConfig
from dove.models.transformer import KVCache, Transformer

SIZES = BackboneConfig(hidden_size=48, num_layers=3, num_heads=3, intermediate_size=80, rotary_fraction=0.25)


@pytest.fixture
def pair() -> tuple[Transformer, GPTNeoXModel]:
    """Our transformer and the library's, with the same weights, none of them at a special value."""
    torch.manual_seed(0)
    library = GPTNeoXModel(
        GPTNeoXConfig(
            vocab_size=1,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=80,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
            attn_implementation="eager",
        )
    ).eval()
    for parameter in library.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    ours = Transformer(SIZES).eval()
    ours.load_state_dict({name: value for name, value in library.state_dict().items() if "embed_in" not in name})
    return ours, library


def additive(mask: torch.Tensor) -> torch.Tensor:
    """A mask as eager attention adds it."""
    return torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)


def test_outputs_are_the_librarys(pair):
    ours, library = pair
    embeddings = torch.randn(2, 7, 48)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        expected = library(inputs_embeds=embeddings, attention_mask=additive(causal)).last_hidden_state
        torch.testing.assert_close(ours(embeddings, causal), expected, atol=2e-6, rtol=1e-5)
        assert (ours(embeddings) - expected).abs().max() > 1e-2  # the mask matters on this input


def test_gradients_are_the_librarys(pair):
    ours, library = pair
    embeddings = torch.randn(2, 6, 48)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    goal = torch.randn(2, 6, 48)
    (ours(embeddings, causal) * goal).sum().backward()
    (library(inputs_embeds=embeddings, attention_mask=additive(causal)).last_hidden_state * goal).sum().backward()
    theirs = dict(library.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=2e-5, rtol=1e-4)


def test_positions_shift_the_rotation(pair):
    ours, library = pair
    embeddings, positions = torch.randn(1, 5, 48), torch.tensor([[4, 9, 11, 40, 41]])
    seen = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    with torch.no_grad():
        expected = library(inputs_embeds=embeddings, attention_mask=additive(seen), position_ids=positions)
        torch.testing.assert_close(ours(embeddings, seen, positions), expected.last_hidden_state, atol=2e-6, rtol=1e-5)


def test_chunks_on_a_cache_equal_one_forward(pair):
    ours, _ = pair
    embeddings = torch.randn(2, 9, 48)
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask[:4, :4] = True
    cache: KVCache = {}
    with torch.no_grad():
        whole = ours(embeddings, mask[None, None])
        parts = [
            ours(embeddings[:, first:last], mask[None, None, first:last, :last], torch.arange(first, last)[None], cache)
            for first, last in ((0, 4), (4, 5), (5, 9))
        ]
    assert [key.shape[2] for key, _ in cache.values()] == [9] * 3
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-6, rtol=1e-5)


def test_fresh_weights_are_drawn_as_the_library_draws_them():
    torch.manual_seed(0)
    ours = Transformer(BackboneConfig(hidden_size=256, num_layers=1, num_heads=4, intermediate_size=1024))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.02)
            assert abs(parameter.mean().item()) < 1e-3


def test_training_and_inference_attend_alike(pair):
    ours, _ = pair
    embeddings = torch.randn(2, 6, 48)
    mask = torch.rand(2, 1, 6, 6) > 0.4
    mask |= torch.eye(6, dtype=torch.bool)
    trained = ours(embeddings, mask).detach()
    with torch.no_grad():
        torch.testing.assert_close(ours(embeddings, mask), trained, atol=2e-6, rtol=1e-5)
