"""Uploads, examples and downloads of the demo's page."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dove.cli import main
from dove.demo.encoded import cut, encode_photo, rebuild
from dove.demo.files import read_photo, write_examples, write_tokens
from dove.errors import UserError
from dove.flags import parse_pairs
from dove.tokenizer import Dove


def test_saved_tokens_decode_to_the_picture_shown(
    tiny_dove: Dove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_dove.save_pretrained("model")
    encoded = encode_photo(tiny_dove, Image.effect_noise((24, 18), 60).convert("RGB"), tiled=False)
    file = write_tokens(tmp_path, "model", cut(encoded, 5), "my photo.jpg")
    assert file.name == "my-photo-5-tokens.zip"
    zipfile.ZipFile(file).extractall(tmp_path)
    assert main(["decode", "tokens", "--model", "model", "--output", "decoded"]) == 0
    with Image.open(next(Path("decoded").rglob("*.png"))) as decoded:
        picture = np.asarray(decoded).astype(int)
    assert np.abs(picture - np.asarray(rebuild(encoded, 5).picture)).max() <= 1


def test_names_that_are_too_long_are_shortened(tiny_dove: Dove, tmp_path: Path) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    encoded = encode_photo(tiny_dove, Image.new("RGB", (16, 16)), tiled=False)
    file = write_tokens(tmp_path, str(tmp_path / "model"), cut(encoded, 2), f"{'x' * 250}.jpg")
    assert file.name == f"{'x' * 80}-2-tokens.zip"


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


def test_examples_are_pictures_that_need_no_network(tmp_path: Path) -> None:
    paths = write_examples(tmp_path)
    assert len(paths) >= 4
    for path in paths:
        with Image.open(path) as picture:
            assert 64 < max(picture.size) <= 640


def test_labels_of_compared_models() -> None:
    assert parse_pairs(["A=x", "B=y=z"], "--compare", "LABEL=CHECKPOINT") == {"A": "x", "B": "y=z"}
    for wrong in (["x"], ["=x"], ["A="], ["A=x", "A=y"]):
        with pytest.raises(UserError, match="--compare"):
            parse_pairs(wrong, "--compare", "LABEL=CHECKPOINT")
