"""The cosine transform as a tokenizer: exact lengths, nothing learned, a checkpoint like any other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.baselines.cosines import Cosines, CosinesConfig
from dove.errors import UserError
from dove.protocol import EncodesEach, Tokenizer
from dove.registry import load_tokenizer
from dove.tokens import Tokens

CONFIG = CosinesConfig(image_size=16, max_tokens=16, token_dim=48, quality_target=30.0)


def smooth(count: int, seed: int) -> torch.Tensor:
    """Smooth images of 16 px, some of them plainer than others."""
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.rand(count, 1, 1, 1, generator=generator)
    noise = contrast * (torch.rand(count, 3, 5, 5, generator=generator) * 2 - 1)
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic", align_corners=False).clamp(-1, 1)


def psnr(cosines: Cosines, tokens: Tokens, images: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of the linear picture, not clamped: what Parseval gives."""
    error = (cosines.transform.picture(tokens.trim()) - images).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error)


@pytest.fixture(scope="module")
def cosines() -> Cosines:
    """Fitted to 300 images."""
    return Cosines.fit(CONFIG, smooth(300, 0))


def test_it_offers_the_protocol_and_has_no_parameters_to_train(cosines: Cosines) -> None:
    assert isinstance(cosines, Tokenizer)
    assert isinstance(cosines, EncodesEach)
    assert not any(parameter.requires_grad for parameter in cosines.parameters())
    assert sum(parameter.numel() for parameter in cosines.parameters()) <= CONFIG.max_tokens


@given(decibels=st.floats(18, 45), seed=st.integers(1, 50))
def test_a_quality_is_met_by_the_fewest_tokens(cosines: Cosines, decibels: float, seed: int) -> None:
    images = smooth(3, seed)
    tokens = cosines.encode(images, f"psnr>={decibels:.4f}")
    reached = psnr(cosines, tokens, images)
    assert (reached >= decibels - 0.01).all()
    for row, length in enumerate(tokens.lengths.tolist()):
        if length > 1:
            less = tokens[row].truncate(length - 1)
            assert psnr(cosines, less, images[row : row + 1]).item() < decibels + 0.01


def test_auto_comes_nearest_to_the_target_quality(cosines: Cosines) -> None:
    images = smooth(6, 3)
    lengths = cosines.encode(images, "auto-8").lengths.tolist()
    reached = torch.stack([psnr(cosines, cosines.encode(images, count), images) for count in range(1, 17)], dim=1)
    assert lengths == ((reached - 38).abs().argmin(1) + 1).tolist()
    assert len(set(lengths)) > 1


def test_all_tokens_are_the_image_and_fewer_are_a_prefix(cosines: Cosines) -> None:
    images = smooth(3, 4)
    whole, few = cosines.encode_each(images, [16, 5])
    torch.testing.assert_close(cosines.decode(whole), images, atol=1e-4, rtol=0)
    torch.testing.assert_close(few.values, whole.truncate(5).values)
    torch.testing.assert_close(cosines.decode(whole, 5), cosines.decode(few))


def test_a_budget_is_spent_where_it_helps(cosines: Cosines) -> None:
    images = smooth(8, 5)
    budget, same = cosines.encode_each(images, ["budget 4", 4])
    assert budget.lengths.sum().item() == 32
    errors = [(cosines.decode(tokens) - images).square().mean() for tokens in (budget, same)]
    assert errors[0] < 0.95 * errors[1]


def test_it_loads_as_any_tokenizer(cosines: Cosines, tmp_path) -> None:
    cosines.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    images = smooth(2, 6)
    assert torch.equal(again.encode(images, 7).values, cosines.encode(images, 7).values)


def test_what_does_not_fit_is_named(cosines: Cosines) -> None:
    with pytest.raises(UserError, match="8 images are too few to fit"):
        Cosines.fit(CONFIG, smooth(8, 0))
    with pytest.raises(UserError, match=r"images are \(300, 3, 8, 8\); this model takes"):
        Cosines.fit(CONFIG, smooth(300, 0)[..., ::2, ::2])
    with pytest.raises(UserError, match="num_tokens=17 exceeds max_tokens=16"):
        cosines.encode(smooth(1, 0), 17)
    with pytest.raises(UserError, match="must be at least 1"):
        CosinesConfig(token_dim=0)
