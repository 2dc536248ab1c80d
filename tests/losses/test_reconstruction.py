import pytest
import torch

from dove.losses.adversarial import generator_loss, hinge_discriminator_loss
from dove.losses.reconstruction import reconstruction_loss, squared_error
from dove.training.config import ReconstructionLossConfig


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_squared_error_is_a_mean_over_pixels_and_channels_of_each_sample():
    images = torch.zeros(2, 3, 4, 4)
    reconstruction = images.clone()
    reconstruction[1, 2, 0, 0] = 2.0
    torch.testing.assert_close(squared_error(reconstruction, images), torch.tensor([0.0, 4.0 / 48]))


def test_squared_error_accumulates_in_float32():
    images = noise(1, 3, 16, 16, seed=0).bfloat16()
    error = squared_error(torch.zeros_like(images), images)
    assert error.dtype == torch.float32
    torch.testing.assert_close(error, images.double().square().mean(dim=(1, 2, 3)).float())


def test_weights_default_to_the_papers():
    loss = ReconstructionLossConfig()
    assert (loss.mse, loss.perceptual, loss.gan) == (1.0, 0.1, 5e-10)


def test_reconstruction_loss_is_eq_2_per_sample():
    terms = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]), torch.tensor([-8.0, 4.0])
    total = reconstruction_loss(*terms, weights=(2.0, 0.5, 0.25))
    torch.testing.assert_close(total, torch.tensor([2.0, 5.0]))


def test_hinge_loss_is_flat_beyond_the_margin():
    real = torch.tensor([3.0, 0.5]).view(2, 1, 1, 1).requires_grad_()
    fake = torch.tensor([-3.0, 0.5]).view(2, 1, 1, 1).requires_grad_()
    loss = hinge_discriminator_loss(real, fake)
    assert loss.item() == pytest.approx((0.5 / 2 + 1.5 / 2) / 2)
    loss.backward()
    assert real.grad.flatten().tolist() == [0.0, -0.25]
    assert fake.grad.flatten().tolist() == [0.0, 0.25]


def test_generator_loss_is_the_negative_mean_logit_of_each_sample():
    logits = noise(3, 1, 2, 5, seed=1)
    expected = torch.stack([-sample.mean() for sample in logits])
    torch.testing.assert_close(generator_loss(logits), expected)
