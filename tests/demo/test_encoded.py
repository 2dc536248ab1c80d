"""Photos of the demo's page, encoded once and rebuilt from any number of tokens, with untrained models of 16 px."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dove.baselines.cosines import Cosines, CosinesConfig
from dove.baselines.vqgan import VQGANTokenizer
from dove.config import DoveConfig
from dove.demo.encoded import common_lengths, cut, encode_photo, jpeg_at_equal_bytes, measure, rebuild
from dove.errors import UserError
from dove.lengths import parse_length_policy
from dove.models.vqgan import VQGAN
from dove.photos.tiled import reconstruct_tiled
from dove.processor import ImageProcessor
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


@pytest.fixture
def cosines() -> Cosines:
    images = 2 * torch.rand(256, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    return Cosines.fit(CosinesConfig(image_size=16, max_tokens=16, token_dim=8), images)


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("request_given", [1, 7, "auto"])
def test_a_photo_is_rebuilt_as_in_tiles_encoded_for_that_length(
    tiny_dove: Dove, photo: Image.Image, request_given: int | str
) -> None:
    encoded = encode_photo(tiny_dove, photo)
    found = rebuild(encoded, request_given)
    policy = parse_length_policy(request_given, tiny_dove.max_tokens)
    expected = reconstruct_tiled(tiny_dove, photo, encoded.tiling, [policy])
    assert found.picture.size == photo.size
    assert difference(found.picture, expected.pictures[0]) <= 1
    np.testing.assert_array_equal(found.lengths, expected.lengths[0])
    assert found.psnr == pytest.approx(expected.psnr[0], abs=1e-3)


def test_a_budget_is_shared_by_the_tiles_where_quality_is_predicted(cosines: Cosines) -> None:
    pixels = np.full((16, 64, 3), 128, np.uint8)
    pixels[:, 32:] = np.random.default_rng(0).integers(0, 256, (16, 32, 3))
    encoded = encode_photo(cosines, Image.fromarray(pixels))
    lengths = rebuild(encoded, 4).lengths
    assert lengths.mean() == 4
    assert lengths[0, 0] == 1
    assert lengths[0, -1] > 4
    assert measure(encoded, 8).psnr > measure(encoded, 2).psnr


def test_a_square_is_one_tile_of_the_models_size(tiny_dove: Dove, photo: Image.Image) -> None:
    encoded = encode_photo(tiny_dove, photo, tiled=False)
    processor = ImageProcessor(16)
    pixels = processor(photo)
    assert encoded.photo.tobytes() == processor.to_pil(pixels)[0].tobytes()
    alone = processor.to_pil(tiny_dove.decode(tiny_dove.encode(pixels, 5)))[0]
    assert difference(rebuild(encoded, 5).picture, alone) <= 1


def test_large_photos_are_scaled_down(tiny_dove: Dove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dove.demo.encoded.LONGEST_SIDE", 32)
    assert rebuild(encode_photo(tiny_dove, Image.new("RGB", (64, 20))), 1).picture.size == (32, 10)


def test_models_of_other_kinds_give_the_number_of_tokens_that_they_have(
    tiny_config: DoveConfig, photo: Image.Image
) -> None:
    encoded = encode_photo(VQGANTokenizer(VQGAN(tiny_config.vqgan)).eval(), photo)
    for request in (1, 16, "auto"):
        assert cut(encoded, request).lengths.unique().tolist() == [16]
    assert rebuild(encoded, 4).picture.size == photo.size


def test_queries_go_to_models_that_take_them(tiny_dove: Dove, tiny_qdove: QDove, photo: Image.Image) -> None:
    whole, about = encode_photo(tiny_qdove, photo), encode_photo(tiny_qdove, photo, query="a red car")
    assert not torch.equal(whole.values, about.values)
    with pytest.raises(UserError, match="takes no queries"):
        encode_photo(tiny_dove, photo, query="a red car")


def test_jpeg_fits_in_as_many_bytes() -> None:
    photo = Image.effect_noise((64, 64), 40).convert("RGB")
    points = jpeg_at_equal_bytes(photo, 100, [1, 10, 20, 40])
    assert [point.tokens for point in points] == [10, 20, 40]
    assert points[0].psnr <= points[1].psnr < points[2].psnr
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=1, optimize=True)
    assert 100 < buffer.tell() < 1000


def test_curves_leave_out_the_capacity() -> None:
    assert common_lengths(64) == [1, 2, 4, 8, 16, 32]
    assert common_lengths(5) == [1, 2, 4]
    assert common_lengths(1) == [1]
