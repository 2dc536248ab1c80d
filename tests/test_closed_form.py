"""The closed-form start: a fresh model is already the linear tokenizer of its images."""

from dataclasses import replace

import pytest
import torch

from dove.closed_form import (
    principal_components,
    spread_waves,
    start_from_bands,
    start_from_cosines,
    start_from_patches,
)
from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.models.token_generator import sinusoidal_encoding
from dove.tokenizer import Dove

BACKBONE = BackboneConfig(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=96, max_positions=64)
CONFIG = DoveConfig(
    vqgan=VQGANConfig(
        image_size=16,
        patch_size=2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=32,
        codebook_size=16,
        norm_groups=4,
        linear_shortcut=True,
    ),
    generator=BACKBONE,
    decoder=BACKBONE,
    max_tokens=16,
    token_dim=64,
    token_basis="bands",
)


def smooth_images(count: int, seed: int = 0) -> torch.Tensor:
    """Little colour, as in photos."""
    draws = torch.Generator().manual_seed(seed)
    light, colour = (torch.rand(count, channels, 5, 5, generator=draws) * 2 - 1 for channels in (1, 3))
    noise = 0.8 * light + 0.2 * colour
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic", align_corners=False).clamp(-1, 1)


def start(basis: str) -> Dove:
    torch.manual_seed(0)
    model = Dove(replace(CONFIG, token_basis=basis)).eval()
    images = smooth_images(400)
    {"bands": start_from_patches, "cosines": start_from_cosines}[basis](model.vqgan, images)
    start_from_bands(model, images)
    return model


@pytest.fixture(scope="module", params=["bands", "cosines"])
def started(request: pytest.FixtureRequest) -> Dove:
    return start(request.param)


def test_principal_components_agree_with_svd() -> None:
    cells = torch.randn(300, 6) @ torch.randn(6, 6)
    mean, directions = principal_components(cells, 2)
    _, _, rows = torch.linalg.svd(cells - mean, full_matrices=False)
    torch.testing.assert_close((directions.T @ rows[:2].T).abs(), torch.eye(2), atol=1e-3, rtol=0)


def test_more_tokens_rebuild_better_before_any_training(started: Dove) -> None:
    images = smooth_images(32, seed=1)
    tokens = started.encode(images, num_tokens=16)
    errors = [(started.decode(tokens, k) - images).square().mean().item() for k in (1, 2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * images.var().item()


def test_a_prefix_is_as_good_as_its_bands(started: Dove) -> None:
    images = smooth_images(32, seed=2)
    bands = started.token_decoder.bands
    kept = bands.split(started.latents(images))
    kept[:, 4:] = 0
    linear = (started.vqgan.decode(bands.merge(kept)).clamp(-1, 1) - images).square().mean()
    ours = (started.decode(started.encode(images, num_tokens=4)) - images).square().mean()
    assert ours < 1.15 * linear


def test_cosines_of_the_picture_rebuild_more_than_those_of_the_grid() -> None:
    images = smooth_images(64, seed=3)
    errors = {}
    for basis in ("bands", "cosines"):
        model = start(basis)
        errors[basis] = (model.decode(model.encode(images, num_tokens=2)) - images).square().mean().item()
    assert errors["cosines"] < 0.9 * errors["bands"]


@pytest.mark.parametrize(("length", "width", "count"), [(64, 192, 3), (256, 512, 8), (16, 64, 2)])
def test_a_linear_map_reads_the_position_from_the_waves(length: int, width: int, count: int) -> None:
    encodings = sinusoidal_encoding(length, width)
    code = torch.cat([encodings[:, spread_waves(encodings, count)], torch.ones(length, 1)], dim=1)
    positions = torch.arange(1.0, length + 1)[:, None]
    errors = code @ torch.linalg.lstsq(code, positions).solution - positions
    assert errors.abs().max() < 0.15 * length
    assert (code.square().sum(1) - count - 1).abs().max() < 1e-4


def test_latents_too_narrow_for_colours_are_refused() -> None:
    narrow = replace(CONFIG, token_basis="cosines", vqgan=replace(CONFIG.vqgan, latent_channels=2))
    with pytest.raises(UserError, match="3 latent channels"):
        Dove(narrow)


def test_models_without_bands_or_shortcut_are_refused() -> None:
    images = smooth_images(4)
    plain = Dove(replace(CONFIG, token_basis="grid", vqgan=replace(CONFIG.vqgan, linear_shortcut=False)))
    with pytest.raises(UserError, match="linear_shortcut"):
        start_from_patches(plain.vqgan, images)
    with pytest.raises(UserError, match="bands"):
        start_from_bands(plain, images)
    with pytest.raises(UserError, match="token_dim"):
        start_from_bands(Dove(replace(CONFIG, token_dim=32)), images)
