"""Parity of the VQGAN with diffusers' VQModel, which lends its parameter names."""

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch.nn import functional as F

from dove.config import VQGANConfig
from dove.errors import UserError
from dove.models.vqgan import VQGAN


def make_pair(*, mid_attention: bool = False, embedding_dim: int | None = None) -> tuple[VQGAN, VQModel]:
    """Our VQGAN and the library's, with the same weights, none of them at a special value."""
    torch.manual_seed(0)
    library = VQModel(
        in_channels=12,
        out_channels=12,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=2,
        latent_channels=6,
        num_vq_embeddings=20,
        norm_num_groups=4,
        vq_embed_dim=embedding_dim,
        mid_block_add_attention=mid_attention,
    )
    for parameter in library.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = VQGAN(
        VQGANConfig(
            image_size=16,
            patch_size=2,
            block_out_channels=(8, 16),
            layers_per_block=2,
            latent_channels=6,
            embedding_dim=embedding_dim,
            codebook_size=20,
            norm_groups=4,
            mid_attention=mid_attention,
        )
    )
    ours.load_state_dict(library.state_dict())
    return ours, library


@pytest.mark.parametrize("mid_attention", [False, True])
@pytest.mark.parametrize("embedding_dim", [None, 5])
def test_latents_and_images_are_the_librarys(mid_attention, embedding_dim):
    ours, library = make_pair(mid_attention=mid_attention, embedding_dim=embedding_dim)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        grid = library.encode(F.pixel_unshuffle(images, 2)).latents
        latents = ours.encode(images)
        torch.testing.assert_close(latents, grid.flatten(2).transpose(1, 2), atol=2e-6, rtol=1e-5)
        expected = F.pixel_shuffle(library.decode(grid, force_not_quantize=True).sample, 2)
        torch.testing.assert_close(ours.decode(latents), expected, atol=2e-6, rtol=1e-5)


def test_the_codebook_is_the_librarys():
    ours, library = make_pair()
    latents = torch.randn(2, 16, 6)
    found = ours.quantize(latents)
    grid = latents.transpose(1, 2).unflatten(2, (4, 4))
    expected, expected_loss, (_, _, expected_ids) = library.quantize(grid)
    torch.testing.assert_close(found.values, expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found.loss, expected_loss)
    assert found.ids.flatten().tolist() == expected_ids.tolist()
    assert len(found.ids.unique()) > 3


def test_gradients_are_the_librarys():
    ours, library = (part.double() for part in make_pair(mid_attention=True))
    images, goal = torch.rand(2, 3, 16, 16).double() * 2 - 1, torch.randn(2, 3, 16, 16).double()
    (ours.decode(ours.encode(images)) * goal).sum().backward()
    grid = library.encode(F.pixel_unshuffle(images, 2)).latents
    (F.pixel_shuffle(library.decode(grid, force_not_quantize=True).sample, 2) * goal).sum().backward()
    theirs = dict(library.named_parameters())
    for name, parameter in ours.named_parameters():
        if "quantize" not in name:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-9, rtol=1e-7)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(UserError, match="norm_groups=7"):
        VQGAN(VQGANConfig(image_size=16, block_out_channels=(8, 16), latent_channels=6, norm_groups=7))
