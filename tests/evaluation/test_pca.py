"""Principal components of hidden features, and the command around them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.cli import main
from dove.errors import UserError
from dove.evaluation.common import Images, load_subjects
from dove.evaluation.pca import collect_features, segment, upsample
from dove.tokenizer import Dove


def test_features_are_those_of_each_block(tiny_dove: Dove, images: torch.Tensor) -> None:
    features = tiny_dove.hidden_layers(images)
    assert features.shape == (2, 3, 16, 32)
    last = tiny_dove.generate(images).grid
    torch.testing.assert_close(tiny_dove.generator.transformer.final_layer_norm(features[-1]), last)


def test_hooks_do_not_stay(tiny_dove: Dove, images: torch.Tensor) -> None:
    tiny_dove.hidden_layers(images)
    assert not any(layer._forward_hooks for layer in tiny_dove.generator.transformer.layers)


def test_components_are_an_independent_svd_s() -> None:
    features = torch.randn(3, 16, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)
    colours, explained_variance = segment("layer 1", features)
    singular = np.linalg.svd((features.flatten(0, 1) - features.mean((0, 1))).double().numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(explained_variance, singular[:3] / singular.sum(), rtol=1e-5)
    assert colours.shape == (3, 4, 4, 3)
    assert colours.min() == 0
    assert colours.max() == 1


def test_two_regions_get_two_colours() -> None:
    features = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    features[:, :8] += 3
    colours, _ = segment("layer 1", features)
    red = colours[..., 0]
    assert abs(red[:, :2].mean() - red[:, 2:].mean()) > 0.9


@pytest.mark.parametrize(
    ("features", "message"),
    [(torch.full((2, 4, 8), torch.nan), "not finite"), (torch.ones(2, 4, 8), "the same everywhere")],
)
def test_features_without_components_are_named(features: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=f"layer 1.*{message}"):
        segment("layer 1", features)


def test_upsampling_keeps_corners() -> None:
    picture = upsample(np.eye(2)[..., None].repeat(3, -1), 16)
    assert picture.size == (16, 16)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((15, 0)) == (0, 0, 0)


def test_larger_pictures_are_read_in_tiles_that_join(tiny_dove: Dove, photos: Path, tmp_path: Path) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    (subject,) = load_subjects([str(tmp_path / "model")], "cpu")
    pixels, features = collect_features(subject, Images(str(photos)), 4)
    expected = subject.tokenizer.hidden_layers(pixels)
    torch.testing.assert_close(features["layer 2"], expected[1])
    pixels, features = collect_features(subject, Images(str(photos)), 4, 32)
    assert features["latents"].shape[1] == 8 * 8
    corner = subject.tokenizer.hidden_layers(pixels[:, :, :16, :16])
    torch.testing.assert_close(features["layer 2"][:, 0], corner[1][:, 0])  # in the first tile alone
    with pytest.raises(UserError, match="--side 24 is no multiple of 16"):
        collect_features(subject, Images(str(photos)), 4, 24)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def test_command_writes_numbers_and_pictures(tiny_dove: Dove, photos: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_dove.save_pretrained(tmp_path / name)
    arguments = ["evaluate", "pca", "--data", str(photos), "--output", str(tmp_path / "out"), "--shown", "2"]
    assert main([*arguments, "--model", str(tmp_path / "one")]) == 0
    report = json.loads((tmp_path / "out" / "pca.json").read_text())
    assert [row["source"] for row in report["rows"]] == ["latents", "layer 1", "layer 2"]
    assert all(0 < row["explained_variance"] <= 1 + 1e-9 for row in report["rows"])
    assert report["provenance"]["seed"] == 0
    with Image.open(tmp_path / "out" / "pca.png") as picture:
        assert picture.width > 4 * 192
    assert main([*arguments, "--model", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "out").glob("pca-*.png"))) == 2


def test_one_image_has_components_of_its_own(tiny_dove: Dove, photos: Path, tmp_path: Path) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    arguments = ["--data", photos / "0.png", "--model", tmp_path / "model", "--output", tmp_path / "out"]
    assert main(["evaluate", "pca", *map(str, arguments)]) == 0
