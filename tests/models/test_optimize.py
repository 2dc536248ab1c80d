"""An optimized tokenizer against the one it was made from."""

import copy
from dataclasses import replace

import pytest
import torch

from dove.config import DoveConfig
from dove.errors import UserError
from dove.lengths import Auto, Budget, Fixed, parse_length_policy
from dove.models.eos import EosScores, VocabularyEosHead
from dove.models.optimize import optimize
from dove.models.token_generator import GeneratorOutput
from dove.tokenizer import Dove

VARIANTS = {
    "paper": {"eos_head": "vocab"},
    "one logit": {"eos_head": "binary"},
    "quality": {"eos_head": "quality"},
    "cosines and quality": {"eos_head": "quality", "prior": "cosines", "prior_numbers": 8},
    "gaussian": {"token_kind": "gaussian"},
}


def pair(config: DoveConfig, precision: str = "fp32", chunk: int = 3) -> tuple[Dove, Dove]:
    """A model and the same one optimized."""
    torch.manual_seed(0)
    plain = Dove(config).eval()
    fast = optimize(copy.deepcopy(plain), precision)
    fast.generator.chunk = chunk
    return plain, fast


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_tokens", [1, 7, 16])
def test_tokens_and_images_are_those_of_the_plain_model(tiny_config, images, variant, num_tokens):
    plain, fast = pair(replace(tiny_config, **VARIANTS[variant]))
    expected, found = plain.encode(images, num_tokens), fast.encode(images, num_tokens)
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.decode(expected), plain.decode(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunk", [1, 3, 5, 16, 99])
def test_chunks_give_what_the_parallel_forward_gives(tiny_config, images, variant, chunk):
    plain, fast = pair(replace(tiny_config, **VARIANTS[variant]), chunk=chunk)
    with torch.no_grad():
        expected = plain.generate(images)
        prefix, code = fast.generator.embed(fast.vqgan.encode(images)), fast.prior.encode(images)
        found = fast.generator.until(prefix, code, 16, lambda eos: torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    for name in ("probability", "margin", "quality"):
        torch.testing.assert_close(getattr(found.eos, name), getattr(expected.eos, name), atol=1e-4, rtol=1e-4)


def test_generation_stops_behind_the_chunk_that_settles_all(tiny_config, images):
    plain, fast = pair(tiny_config)
    margin = plain.generate(images).eos.margin
    bias = 1e-4 - margin[:, 1:].amax(1).min().item()  # at least one EOS in each image
    policy = parse_length_policy(f"auto{bias:+.6f}", 16)
    expected = plain.encode(images, policy)
    output: list[GeneratorOutput] = []
    until = fast.generator.until
    fast.generator.until = lambda *args, **kw: output.append(until(*args, **kw)) or output[-1]  # type: ignore[method-assign]
    found = fast.encode(images, policy)
    assert found.lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    longest = int(expected.lengths.max())
    assert output[0].values.shape[1] == min(16, -(-(longest + 1) // 3) * 3)  # whole chunks, with the EOS itself


def test_several_requests_at_once_are_what_they_are_alone(tiny_config, images):
    plain, fast = pair(replace(tiny_config, eos_head="quality"))
    requests = ["auto", 5, "psnr>=20", "max 9", "budget 6"]
    for found, expected in zip(fast.encode_each(images, requests), plain.encode_each(images, requests), strict=True):
        assert found.lengths.tolist() == expected.lengths.tolist()
        torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_keeps_the_direction_of_the_tokens_and_the_outer_type(tiny_config, images, variant):
    plain, fast = pair(replace(tiny_config, **VARIANTS[variant]), "bf16")
    expected, found = plain.encode(images, 16), fast.encode(images, 16)
    assert found.values.dtype == fast.decode(found).dtype == torch.float32
    assert torch.cosine_similarity(found.values, expected.values, dim=-1).min() > 0.999
    assert (fast.decode(expected) - plain.decode(expected)).abs().max() < 0.05


def test_the_state_dict_keeps_its_names(tiny_config):
    plain, fast = pair(tiny_config)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    Dove(tiny_config).load_state_dict(fast.state_dict())


def test_an_unknown_precision_is_refused(tiny_config):
    with pytest.raises(UserError, match="no precision 'int8'; pass fp32 or bf16"):
        optimize(Dove(tiny_config), "int8")


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_queries_give_what_they_gave(tiny_qdove, images, chunk):
    fast = optimize(copy.deepcopy(tiny_qdove), "fp32")
    fast.generator.chunk = chunk
    queries = ["the dog", None, "a red car on the left"]
    expected, found = (model.encode(images, "auto-9", queries) for model in (tiny_qdove, fast))
    assert found.lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    assert optimize(copy.deepcopy(tiny_qdove)).encode(images, 4, "the dog").values.dtype == torch.float32


def test_a_number_of_tokens_is_generated_at_once(tiny_config, images):
    _, fast = pair(tiny_config)
    steps: list[int] = []
    project = fast.generator.eos_head.projection
    project.register_forward_hook(lambda module, inputs, output: steps.append(output.shape[1]))
    fast.encode(images, 10)
    fast.encode_each(images, [5, "auto-100"])
    assert steps == [10, 5, 4, 4, 4, 3]  # each chunk with the position in front of it


def test_limited_lengths_are_settled_when_their_positions_are_there():
    scores = EosScores(probability=torch.zeros(2, 4), margin=torch.tensor([[9.0, -1, -1, 1], [9, -1, -1, -1]]))
    assert Auto().settled(scores).tolist() == [True, False]
    assert Auto(max_tokens=4).settled(scores).all()
    assert [policy.least_positions(16) for policy in (Fixed(4), Auto(), Budget(3.0))] == [4, 1, 16]


@pytest.mark.parametrize("portion", [1, 5, 7, 48, 100])
def test_a_vocabulary_in_portions_gives_the_same_scores(portion):
    torch.manual_seed(0)
    head, hidden, known = VocabularyEosHead(8, 30, 3), torch.randn(3, 16, 8), torch.zeros(3, 16)
    whole = head(hidden, known)
    logits = head.projection(hidden)
    torch.testing.assert_close(whole.probability, logits.softmax(-1)[..., 3])
    others = torch.cat([logits[..., :3], logits[..., 4:]], dim=-1)
    torch.testing.assert_close(whole.margin, logits[..., 3] - others.amax(-1))
    head.positions_at_once = portion
    torch.testing.assert_close(head(hidden, known).margin, whole.margin)
