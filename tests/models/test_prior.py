"""The cosine prior: an orthonormal transform, exact lengths, and nothing lost when all tokens are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn

from dove.errors import UserError
from dove.metrics import psnr
from dove.models.prior import CosinePrior, cosine_matrix, deal
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.initialisation import fit_prior

SIDE, CAPACITY = 16, 16


def smooth_images(count: int, seed: int = 0) -> torch.Tensor:
    """Images whose coefficients fall with frequency, as photos' do."""
    noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    falloff = 1 / (1 + torch.arange(SIDE)[:, None] + torch.arange(SIDE)[None]).float()
    cosines = cosine_matrix(SIDE)
    return (cosines.T @ (noise * falloff) @ cosines).clamp(-1, 1)


@pytest.fixture(scope="module")
def prior() -> CosinePrior:
    """A prior of 40 fixed and 12 learned numbers in the first token: 16 x 52 - 12 are more than a picture's 768."""
    made = CosinePrior(SIDE, CAPACITY, 40, 12)
    made.fit(smooth_images(300))
    return made


def tokens_of(prior: CosinePrior, images: torch.Tensor, lengths: torch.Tensor) -> Tokens:
    """Tokens of the linear code alone, with zeros for the learned numbers."""
    return Tokens.cut(prior.encode(images).fixed, lengths)


def test_the_transform_is_scipys(prior):
    images = smooth_images(2, seed=1)
    opponent = np.einsum("oc,bchw->bohw", prior.colours.numpy(), images.numpy())
    expected = dctn(opponent, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(prior.transform(images).numpy(), expected.reshape(2, -1), atol=1e-5)


def test_the_inverse_undoes_it_and_keeps_the_energy(prior):
    images = smooth_images(2, seed=2)
    coefficients = prior.transform(images)
    torch.testing.assert_close(prior.inverse(coefficients), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(coefficients.square().sum(1), images.square().sum((1, 2, 3)))


@given(st.lists(st.integers(1, CAPACITY), min_size=3, max_size=3))
def test_the_known_quality_is_the_pictures(prior, lengths):
    images, cut = smooth_images(3, seed=3), torch.tensor(lengths)
    known = prior.encode(images).quality.gather(1, cut[:, None] - 1)[:, 0]
    measured = psnr(prior.picture(tokens_of(prior, images, cut)), images)
    torch.testing.assert_close(known.clamp(max=90), measured.detach().clamp(max=90), atol=0.02, rtol=0)


def test_all_tokens_hold_the_picture_exactly_whatever_was_learned(prior):
    images, lengths = smooth_images(2, seed=4), torch.full((2,), CAPACITY)
    tokens = tokens_of(prior, images, lengths)
    values = tokens.values.clone()
    values[:, 0, 40:] = torch.randn_like(values[:, 0, 40:])
    disturbed = Tokens(values, lengths)
    picture = prior.picture(disturbed)
    completed = prior.complete(picture, torch.randn(2, 3, SIDE, SIDE), lengths)
    torch.testing.assert_close(completed, images, atol=2e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 5, 12])
def test_completing_moves_only_what_is_not_fixed(prior, length):
    images, lengths = smooth_images(2, seed=5), torch.full((2,), length)
    picture = prior.picture(tokens_of(prior, images, lengths))
    added = torch.randn(2, 3, SIDE, SIDE)
    moved = prior.transform(prior.complete(picture, added, lengths) - picture)[:, prior.order]
    held = prior.held(lengths)
    assert moved[held].abs().max() < 1e-4
    assert moved[~held].abs().max() > 1e-2


def test_the_projection_never_raises_the_error(prior):
    images, lengths = smooth_images(4, seed=6), torch.tensor([1, 3, 6, 9])
    picture = prior.picture(tokens_of(prior, images, lengths))
    added = torch.randn(4, 3, SIDE, SIDE)
    scale = (prior.deviation.square() * prior._unordered(~prior.held(lengths))).mean(1).sqrt()
    unprojected = picture + added * scale[:, None, None, None]
    projected = prior.complete(picture, added, lengths)
    assert ((projected - images).square().sum((1, 2, 3)) <= (unprojected - images).square().sum((1, 2, 3)) + 1e-4).all()


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 9), st.integers(0, 5))
def test_every_rank_is_assigned_once_in_order_and_none_where_numbers_are_learned(count, max_tokens, fixed, learned):
    ranks = deal(count, max_tokens, fixed, learned)
    assert ranks.shape == (max_tokens, fixed + learned)
    assert (ranks[0, fixed:] == count).all()
    assigned = [rank for rank in ranks.flatten().tolist() if rank < count]
    assert assigned == list(range(min(count, max_tokens * (fixed + learned) - learned)))


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="20 images are too few to fit a cosine prior to; pass at least 256"):
        CosinePrior(SIDE, CAPACITY, 40, 12).fit(smooth_images(20))


@pytest.fixture
def model(tiny_config) -> Dove:
    """A fresh tokenizer with a fitted prior."""
    torch.manual_seed(0)
    made = Dove(replace(tiny_config, prior="cosines", prior_numbers=48, token_dim=60)).eval()
    assert isinstance(made.prior, CosinePrior)
    fit_prior(made, made.prior, smooth_images(300))
    return made


def test_a_fresh_model_is_the_cosine_transform(model):
    images, lengths = smooth_images(3, seed=7), torch.tensor([2, 5, 16])
    tokens = Tokens.cut(model.encode(images, 16).values, lengths)
    expected = model.prior.picture(tokens_of(model.prior, images, lengths))
    torch.testing.assert_close(model.decode(tokens), expected.detach().clamp(-1, 1), atol=1e-5, rtol=0)


def test_a_trained_model_still_holds_pictures_exactly(model):
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = smooth_images(2, seed=8)
    torch.testing.assert_close(model.decode(model.encode(images, 16)), images, atol=1e-4, rtol=0)


def test_prefixes_of_one_forward_equal_shorter_forwards(model):
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = smooth_images(2, seed=9)
    with torch.no_grad():
        whole, short = model.generate(images), model.generate(images, 5)
    torch.testing.assert_close(whole.values[:, :5], short.values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.eos.margin[:, :5], short.eos.margin, atol=1e-4, rtol=1e-4)
    model.generator.chunk = 3
    chunked = model.encode(images, 11)
    torch.testing.assert_close(chunked.values[:, :11], whole.values[:, :11], atol=1e-5, rtol=1e-5)


def test_it_survives_saving(model, tmp_path):
    images = smooth_images(2, seed=10)
    model.save_pretrained(tmp_path)
    again = Dove.from_pretrained(tmp_path)
    torch.testing.assert_close(again.encode(images, 7).values, model.encode(images, 7).values)


def test_the_generator_computes_the_last_numbers_of_the_first_token_alone(model):
    images = smooth_images(2, seed=11)
    fixed = model.prior.encode(images).fixed
    values = model.generate(images).values
    learned = values != fixed
    assert learned[:, 0, 48:].all()
    assert not learned[:, 0, :48].any()
    assert not learned[:, 1:].any()


def test_the_decoder_reads_learned_numbers_and_they_get_its_gradient(model):
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = smooth_images(2, seed=12)
    tokens = Tokens.cut(model.generate(images).values, torch.tensor([1, 3]))
    moved = tokens.values.clone()
    moved[:, 0, 48:] += 1
    assert (model.decode(tokens) - model.decode(Tokens(moved, tokens.lengths))).abs().amax((1, 2, 3)).min() > 1e-4
    rebuilt = model.reconstruct_from(Tokens.cut(model.generate(images).values, tokens.lengths))
    (rebuilt - images).square().mean().backward()
    assert model.generator.token_projection.weight.grad.abs().sum() > 0
