"""Uploads and examples of the demo's page."""

from pathlib import Path

import pytest
from PIL import Image

from dove.demo.encoded import read_photo, write_examples
from dove.errors import UserError
from dove.flags import parse_pairs


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
