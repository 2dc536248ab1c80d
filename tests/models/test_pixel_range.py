"""The "amused" VQGAN works on pixels in [0, 1], the rest of the project in [-1, 1]: what happens at the border."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel

from dove.checkpoint import save_checkpoint
from dove.cli import main
from dove.commands.train import parse
from dove.config import VQGANConfig
from dove.errors import UserError
from dove.models.vqgan import VQGAN
from dove.registry import load_tokenizer
from dove.training.config import DoveTrainConfig
from dove.training.initialisation import require_pixel_range
from dove.training.presets import PRESETS


@pytest.fixture
def amused(tmp_path: Path) -> VQModel:
    """A small VQModel in the amused one's layout, saved in ``tmp_path/amused``."""
    torch.manual_seed(0)
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=8,
        num_vq_embeddings=32,
        norm_num_groups=4,
        mid_block_add_attention=False,
    ).eval()
    model.save_pretrained(tmp_path / "amused")
    return model


@torch.no_grad()
def test_pixels_are_those_of_the_library_s_own_pipeline(amused: VQModel, tmp_path: Path) -> None:
    assert main(["convert", str(tmp_path / "amused"), "--kind", "vqmodel", "--output", str(tmp_path / "vqgan")]) == 0
    vqgan = load_tokenizer(tmp_path / "vqgan").vqgan  # type: ignore[attr-defined]
    assert vqgan.config.pixel_range == "0..1"
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = amused.encode(pixels).latents  # the pipeline's processor has do_normalize=False: pixels as they are
    latents = vqgan.encode(pixels * 2 - 1)
    torch.testing.assert_close(latents, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    shown = amused.decode(expected, force_not_quantize=True).sample.clip(0, 1)
    torch.testing.assert_close((vqgan.decode(latents).clamp(-1, 1) + 1) / 2, shown, atol=1e-5, rtol=1e-5)


def test_our_own_range_is_handed_through_and_saved(tmp_path: Path) -> None:
    config = VQGANConfig(
        image_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=8,
        codebook_size=16,
        norm_groups=4,
    )
    torch.manual_seed(0)
    ours = VQGAN(config)
    other = VQGAN(replace(config, pixel_range="0..1"))
    other.load_state_dict(ours.state_dict())
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(other.encode(images * 2 - 1), ours.encode(images))
    torch.testing.assert_close(other.decode(ours.encode(images)), ours.decode(ours.encode(images)) * 2 - 1)
    save_checkpoint(tmp_path, other.config, other.state_dict())
    assert load_tokenizer(tmp_path).vqgan.config.pixel_range == "0..1"  # type: ignore[attr-defined]


def test_the_wrong_range_for_the_amused_vqgan_is_refused(tmp_path: Path) -> None:
    for name in ("dove-base", "dove-14m"):
        config = PRESETS[name]
        assert isinstance(config, DoveTrainConfig)
        require_pixel_range(config)
    (tmp_path / "mine.yaml").write_text("preset: dove-base\nmodel: {vqgan: {pixel_range: -1..1}}\n")
    changed = parse(["--config", str(tmp_path / "mine.yaml")])
    assert isinstance(changed, DoveTrainConfig)
    with pytest.raises(UserError, match="pass --model.vqgan.pixel-range 0..1"):
        require_pixel_range(changed)
