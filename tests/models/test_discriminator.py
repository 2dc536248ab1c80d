import pytest
import torch

from dove.config import DiscriminatorConfig
from dove.errors import UserError
from dove.models.discriminator import PatchDiscriminator


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("layers", "size", "side"), [(1, 16, 6), (2, 16, 2), (2, 32, 6), (3, 24, 1)])
def test_logits_form_a_grid_of_patches(layers, size, side):
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=8, layers=layers))
    assert discriminator(noise(2, 3, size, size)).shape == (2, 1, side, side)


def test_the_defaults_see_70_pixels_per_logit():
    discriminator = PatchDiscriminator(DiscriminatorConfig())
    field = 1
    for convolution in reversed([block for block in discriminator.blocks if isinstance(block, torch.nn.Conv2d)]):
        field = (field - 1) * convolution.stride[0] + convolution.kernel_size[0]
    assert field == 70


def test_widths_grow_up_to_eightfold():
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=8, layers=5))
    widths = [block.out_channels for block in discriminator.blocks if isinstance(block, torch.nn.Conv2d)]
    assert widths == [8, 16, 32, 64, 64, 64, 1]


def test_a_samples_logits_do_not_depend_on_its_batch():
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=8, layers=2)).train()
    images = noise(3, 3, 16, 16)
    torch.testing.assert_close(discriminator(images)[1:2], discriminator(images[1:2]))


def test_every_parameter_gets_a_gradient():
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=8, layers=2))
    discriminator(noise(2, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in discriminator.parameters())


def test_too_small_an_image_says_what_to_change():
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=8, layers=3))
    with pytest.raises(UserError, match="23x24 px are too small.*needs 24 px; use fewer layers"):
        discriminator(noise(1, 3, 24, 23))


@pytest.mark.parametrize(("field", "value"), [("width", 0), ("width", 12), ("layers", 0)])
def test_a_size_that_cannot_be_built_is_refused(field, value):
    with pytest.raises(UserError, match=f"{field}={value}"):
        PatchDiscriminator(DiscriminatorConfig(**{field: value}))
