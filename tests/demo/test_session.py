"""What the demo's page computes, with untrained models of 16 px."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.baselines.vqgan import VQGANTokenizer
from dove.cli import main
from dove.config import DoveConfig
from dove.demo.session import (
    LONGEST_SIDE,
    Prefixes,
    compare,
    describe,
    parse_compared,
    read_photo,
    rebuild_prefixes,
    rebuild_tiles,
    write_tokens,
)
from dove.errors import UserError
from dove.metrics import psnr
from dove.models.vqgan import VQGAN
from dove.processor import ImageProcessor
from dove.query.config import QueryConfig
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def made_up(values: list[float]) -> Prefixes:
    """Prefixes of 1, 2, ... tokens with these qualities."""
    picture = Image.new("RGB", (16, 16))
    counts = tuple(range(1, len(values) + 1))
    pictures = [Image.new("RGB", (16, 16), (count, 0, 0)) for count in counts]
    tokens = torch.zeros(1, len(values), 8)
    return Prefixes(original=picture, counts=counts, pictures=pictures, psnr=values, auto=2, tokens=tokens)


def test_every_prefix_is_what_encoding_with_that_number_gives(tiny_dove: Dove, photo: Image.Image) -> None:
    found = rebuild_prefixes(tiny_dove, photo)
    processor = ImageProcessor(16)
    pixels = processor(photo)
    assert found.counts == tuple(range(1, 17))
    assert found.original.tobytes() == processor.to_pil(pixels)[0].tobytes()
    for count in (1, 7, 16):
        alone = tiny_dove.decode(tiny_dove.encode(pixels, count))
        shown = np.asarray(found.pictures[count - 1]).astype(int)
        assert np.abs(shown - np.asarray(processor.to_pil(alone)[0])).max() <= 1
        assert found.psnr[count - 1] == pytest.approx(float(psnr(alone, pixels)[0]), abs=1e-3)
    assert found.auto == int(tiny_dove.encode(pixels, "auto").lengths[0])


def test_the_fewest_tokens_for_a_quality() -> None:
    found = made_up([10.0, 20.0, 15.0, 30.0])
    assert [found.fewest(value) for value in (5.0, 10.5, 20.0, 25.0, 30.0, 31.0)] == [1, 2, 2, 4, 4, 4]
    assert [found.at(number) for number in (0, 1, 4, 9)] == [0, 0, 3, 3]


def test_a_line_about_a_length() -> None:
    line = describe(made_up([10.0, 20.0, 15.0, 30.0]), 3)
    assert "3 of 4 tokens" in line
    assert "15.0 dB" in line
    assert "3 × 8 numbers" in line


def test_queries_go_to_models_that_take_them(tiny_dove: Dove, photo: Image.Image) -> None:
    asked = QDove.from_dove(tiny_dove, QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=8))
    whole, about = rebuild_prefixes(asked, photo), rebuild_prefixes(asked, photo, "a red car")
    assert not torch.equal(whole.tokens, about.tokens)
    with pytest.raises(UserError, match="takes no queries"):
        rebuild_prefixes(tiny_dove, photo, "a red car")


def test_models_of_other_kinds_stand_beside(tiny_dove: Dove, tiny_config: DoveConfig, photo: Image.Image) -> None:
    other = rebuild_prefixes(VQGANTokenizer(VQGAN(tiny_config.vqgan)).eval(), photo)
    assert other.counts == (16,)
    picture = compare({"dove": rebuild_prefixes(tiny_dove, photo), "vqgan": other}, 4)
    assert picture.width > 3 * 192


def test_a_photo_in_tiles(tiny_dove: Dove, photo: Image.Image) -> None:
    done = rebuild_tiles(tiny_dove, photo, "4")
    assert done.rebuilt.size == photo.size
    assert done.tokens == 4 * done.tiles
    assert not done.scaled
    with pytest.raises(UserError, match="not understood"):
        rebuild_tiles(tiny_dove, photo, "many")


def test_large_photos_are_scaled_before_tiling(tiny_dove: Dove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dove.demo.session.LONGEST_SIDE", 32)
    done = rebuild_tiles(tiny_dove, Image.new("RGB", (64, 20)), "1")
    assert done.rebuilt.size == (32, 10)
    assert done.scaled
    assert LONGEST_SIDE > 1000


def test_saved_tokens_decode_to_the_picture_shown(
    tiny_dove: Dove, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_dove.save_pretrained("model")
    found = rebuild_prefixes(tiny_dove, photo)
    file = write_tokens(tmp_path, "model", found, 5, "my photo.jpg")
    assert file.name == "my-photo-5-tokens.zip"
    zipfile.ZipFile(file).extractall(tmp_path)
    assert main(["decode", "tokens", "--model", "model", "--output", "decoded"]) == 0
    picture = next(Path("decoded").rglob("*.png"))
    difference = np.asarray(Image.open(picture)).astype(int) - np.asarray(found.pictures[4])
    assert np.abs(difference).max() <= 1


def test_uploads_that_are_no_pictures_are_refused_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("not a picture")
    with pytest.raises(UserError, match=r"^notes\.png: not an image"):
        read_photo(str(bad), 50.0)
    large = tmp_path / "large.png"
    Image.new("RGB", (200, 100)).save(large)
    with pytest.raises(UserError, match="200 × 100 pixels are more than 0.01 million"):
        read_photo(str(large), 0.01)
    assert read_photo(str(large), 1.0).size == (200, 100)


def test_labels_of_compared_models() -> None:
    assert parse_compared(["A=x", "B=y=z"]) == {"A": "x", "B": "y=z"}
    for wrong in (["x"], ["=x"], ["A="], ["A=x", "A=y"]):
        with pytest.raises(UserError, match="--compare"):
            parse_compared(wrong)
