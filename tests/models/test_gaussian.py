"""Gaussian tokens: the divergence's formula, sampling, and a start that equals plain DOVE."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from dove.config import DoveConfig
from dove.errors import UserError
from dove.losses.gaussian import divergence_from_standard_normal
from dove.models.eos import EosScores
from dove.models.gaussian import GaussianOutput
from dove.models.token_generator import GeneratorOutput
from dove.tokenizer import Dove
from dove.training.config import DoveTrainConfig
from dove.training.initialisation import initialise_from_checkpoint
from dove.training.objectives import DoveObjective, Step


@pytest.fixture
def gaussian(tiny_config: DoveConfig) -> Dove:
    torch.manual_seed(0)
    return Dove(replace(tiny_config, token_kind="gaussian")).eval()


def test_the_divergence_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 3, 4, 5, generator=generator)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean(-1)
    assert torch.allclose(divergence_from_standard_normal(mean, log_variance), expected, atol=1e-5)
    assert (divergence_from_standard_normal(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)) == 0).all()


def test_samples_have_the_mean_and_the_deviation_of_the_token(gaussian: Dove, images: torch.Tensor) -> None:
    output = gaussian.generate(images)
    assert isinstance(output, GaussianOutput)
    output = replace(output, log_variance=torch.full_like(output.values, -2.0))
    torch.manual_seed(0)
    samples = torch.stack([output.sample() for _ in range(400)])
    assert torch.allclose(samples.mean(0).detach(), output.values, atol=0.12)
    assert samples.std(0).mean().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)


def test_inference_takes_the_mean(gaussian: Dove, images: torch.Tensor) -> None:
    first, second = gaussian.encode(images, 5), gaussian.encode(images, 5)
    assert torch.equal(first.values, second.values)
    torch.testing.assert_close(first.values[:, :5], gaussian.generate(images, 5).values, atol=1e-5, rtol=1e-5)


def test_it_starts_as_the_tokenizer_it_came_from(
    gaussian: Dove, tiny_dove: Dove, images: torch.Tensor, tmp_path: object
) -> None:
    tiny_dove.save_pretrained(tmp_path)
    initialise_from_checkpoint(gaussian, str(tmp_path))
    assert torch.equal(gaussian.decode(gaussian.encode(images, 7)), tiny_dove.decode(tiny_dove.encode(images, 7)))
    with pytest.raises(UserError, match="--checkpoint"):
        initialise_from_checkpoint(gaussian, "")


def test_checkpoints_keep_the_kind(gaussian: Dove, tmp_path: object, images: torch.Tensor) -> None:
    gaussian.save_pretrained(tmp_path)
    again = Dove.from_pretrained(tmp_path)
    assert again.config.token_kind == "gaussian"
    assert torch.equal(again.encode(images, 3).values, gaussian.encode(images, 3).values)


def test_the_prior_pulls_only_where_it_has_weight(gaussian: Dove, images: torch.Tensor) -> None:
    config = DoveTrainConfig(preset="dove-tiny-paper", model=gaussian.config)
    losses = {}
    for weight in (0.0, 1.0):
        loss = replace(config.loss, kl=weight, perceptual=0.0, perceptual_network="none", gan=0.0)
        torch.manual_seed(1)
        result = DoveObjective(replace(config, loss=loss), gaussian)(images, Step(0))
        losses[weight] = result.loss
    assert (losses[1.0] - losses[0.0]).item() == pytest.approx(result.metrics["kl"].item(), rel=1e-4)
    losses[1.0].backward()
    gradient = gaussian.generator.log_variance_projection.bias.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_points_have_no_divergence() -> None:
    eos = EosScores(torch.zeros(2, 3), torch.zeros(2, 3))
    output = GeneratorOutput(torch.ones(2, 3, 4), eos, torch.zeros(2, 5, 6), torch.zeros(2, 3, 6))
    assert output.sample() is output.values
    assert output.divergence().tolist() == [[0, 0, 0], [0, 0, 0]]
