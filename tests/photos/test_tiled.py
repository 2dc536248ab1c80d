"""Photos in tiles against the same done plainly, all tiles at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dove.config import DoveConfig
from dove.errors import UserError
from dove.lengths import parse_length_policy
from dove.metrics import psnr
from dove.photos import tiled
from dove.photos.reconstruction import choose_together, encode_given, reconstruct
from dove.photos.tiled import batch_tiles, passes, reconstruct_tiled, scale_down
from dove.photos.tiling import Tiling
from dove.tokenizer import Dove

REQUESTS = ["budget 5", "psnr>=7", "auto", "3", "search psnr>=6"]


@pytest.fixture
def model(tiny_config: DoveConfig) -> Dove:
    """A tokenizer whose head predicts qualities, untrained."""
    torch.manual_seed(0)
    return Dove(replace(tiny_config, eos_head="quality")).eval()


def tile_photo(photo: Image.Image, side: int, overlap: int) -> Tiling:
    return Tiling(height=photo.height, width=photo.width, tile=side, overlap=overlap)


def picture(width: int, height: int) -> Image.Image:
    corners = np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("width", "height", "overlap"), [(45, 30, 4), (16, 16, 0), (9, 40, 15), (5, 3, 8)])
def test_equals_all_tiles_at_once(
    model: Dove, width: int, height: int, overlap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = picture(width, height)
    tiling = tile_photo(photo, 16, overlap)
    policies = [parse_length_policy(request, 16) for request in REQUESTS]
    pixels = np.asarray(photo, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
    tiles = torch.from_numpy(tiling.split(pixels))
    monkeypatch.setattr(tiled, "CPU_PIXELS", 2 * 16**2)  # two tiles at a time
    counted: list[int] = []
    found = reconstruct_tiled(model, photo, tiling, policies, progress=counted.append)
    assert sum(counted) == 2 * len(tiles)
    for number, policy in enumerate(policies):
        tokens = model.encode(tiles, policy)
        whole = tiling.join(model.decode(tokens).numpy())
        assert found.lengths[number].shape == (len(tiling.rows), len(tiling.columns))
        assert found.lengths[number].ravel().tolist() == tokens.lengths.tolist()
        expected = psnr(torch.from_numpy(whole[None]), torch.from_numpy(pixels[None])).item()
        assert found.psnr[number] == pytest.approx(expected, abs=1e-3)
        assert found.pictures[number].size == (width, height)
        levels = np.asarray(found.pictures[number], dtype=np.float32).transpose(2, 0, 1)
        assert np.abs(levels - (whole + 1) * 127.5).max() < 0.51


def test_a_budget_is_a_mean_over_all_tiles(model: Dove) -> None:
    photo = picture(60, 50)
    tiling = tile_photo(photo, 16, 2)
    found = reconstruct_tiled(model, photo, tiling, [parse_length_policy("budget 5.5", 16)])
    assert found.lengths[0].sum() == int(5.5 * len(tiling))


def test_images_share_a_budget_as_if_they_were_one_batch(model: Dove, images: torch.Tensor) -> None:
    policies = [parse_length_policy(request, 16) for request in ("2", "budget 7", "auto")]
    chosen = choose_together(model, (image[None] for image in images), policies)
    assert chosen[0] is None
    assert chosen[2] is None
    assert chosen[1] is not None
    expected = model.encode_each(images, policies)
    assert chosen[1].tolist() == expected[1].lengths.tolist()
    for tokens, plain in zip(encode_given(model, images, policies, chosen), expected, strict=True):
        torch.testing.assert_close(tokens.values, plain.values, atol=1e-5, rtol=1e-4)
    alone = reconstruct(model, images[2], policies, given=[None, int(chosen[1][2]), None])
    assert alone.lengths == [int(tokens.lengths[2]) for tokens in expected]


def test_nothing_is_computed_where_every_image_stands_alone(model: Dove) -> None:
    policies = [parse_length_policy(request, 16) for request in ("2", "auto")]
    assert passes(policies) == 1

    def untouched():
        raise AssertionError
        yield

    assert choose_together(model, untouched(), policies) == [None, None]


def test_a_budget_of_a_model_without_predictions_is_refused_at_the_first_batch(
    tiny_dove: Dove, images: torch.Tensor
) -> None:
    def batches():
        yield images
        raise AssertionError("went on")

    with pytest.raises(UserError, match="predicts PSNR"):
        choose_together(tiny_dove, batches(), [parse_length_policy("budget 7", 16)])


def test_a_batch_is_what_half_of_the_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 2 * tiled.BYTES_A_PIXEL * 10 * 64**2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    gpu = torch.device("cuda")
    assert batch_tiles(64, gpu) == 10
    assert batch_tiles(256, gpu) == 1
    free = 10**12
    assert batch_tiles(64, gpu) == tiled.MOST_PIXELS // 64**2
    assert batch_tiles(64, torch.device("cpu")) == 16


@pytest.mark.parametrize(("size", "expected"), [((40, 20), (10, 5)), ((4, 9), (4, 9)), ((1000, 2), (10, 1))])
def test_photos_are_scaled_down_and_never_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scale_down(picture(*size), 10).size == expected
