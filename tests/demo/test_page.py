"""The demo's page and its events, without a browser; where gradio is installed (`make test-e2e`)."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dove.baselines.cosines import Cosines, CosinesConfig
from dove.tokenizer import Dove

pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def demo(tiny_dove: Dove, tmp_path: Path):
    from dove.demo.page import Demo

    config = tiny_dove.config
    sizes = CosinesConfig(image_size=16, max_tokens=config.max_tokens, token_dim=config.token_dim)
    cosines = Cosines.fit(sizes, 2 * torch.rand(256, 3, 16, 16) - 1)
    return Demo(models={"mine": tiny_dove, "cosines": cosines}, folder=tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.effect_noise((24, 18), 60).convert("RGB").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_the_events_of_a_visit(demo, photo: str) -> None:
    from dove.demo.page import SQUARE, TILED, build

    build(demo)
    held, slider, pictures, line = demo.load(photo, "mine", TILED, None, 4)
    assert slider.value == 4
    assert pictures.count("<img") == 2
    assert "**4.0 tokens a tile** · 16 for 4 tiles" in line
    assert "**3.0 tokens a tile**" in demo.show(held, 3)[1]
    slider, _, line = demo.auto(held)
    assert "lengths by `auto`" in line
    assert 1 <= slider.value <= 16
    *_, drawing = demo.curve(held)
    assert drawing.count(">cosines<") == 1
    held, _, _, line = demo.load(photo, "mine", SQUARE, None, 4)
    assert line.startswith("**4 tokens**")
    held, *_ = demo.load(photo, "cosines", TILED, "ignored", 4)
    *_, drawing = demo.curve(held)
    assert ">cosines<" not in drawing


def test_mistakes_are_told(demo, photo: str, tmp_path: Path) -> None:
    from dove.demo.page import TILED, told

    with pytest.warns(UserWarning, match="no photo yet"):
        told(demo.auto, lambda: "instead")(None)
    assert demo.load(None, "mine", TILED, "", 4)[0] is None
    assert list(demo.curve(None)) == [""]
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"notes\.png: not an image"):
        told(demo.load)(str(tmp_path / "notes.png"), "mine", TILED, "", 4)
