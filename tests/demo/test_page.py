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

    tiny_dove.save_pretrained(tmp_path / "model")
    config = tiny_dove.config
    sizes = CosinesConfig(image_size=16, max_tokens=config.max_tokens, token_dim=config.token_dim)
    cosines = Cosines.fit(sizes, 2 * torch.rand(256, 3, 16, 16) - 1)
    return Demo(
        models={"mine": tiny_dove, "cosines": cosines},
        checkpoints={"mine": str(tmp_path / "model"), "cosines": "cosines"},
        folder=tmp_path,
    )


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.effect_noise((24, 18), 60).convert("RGB").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_the_events_of_a_visit(demo, photo: str) -> None:
    from dove.demo.page import SQUARE, TILED, build

    build(demo)
    held, slider, pictures, line, save, _ = demo.load(photo, "mine", TILED, None, 4)
    assert slider.value == 4
    assert pictures.count("<img") == 2
    assert "**4.0 tokens a tile** · 16 for 4 tiles" in line
    assert not save.visible
    assert "**3.0 tokens a tile**" in demo.show(held, 3)[1]
    slider, _, line = demo.auto(held)
    assert "lengths by `auto`" in line
    assert 1 <= slider.value <= 16
    *_, drawing = demo.curve(held)
    assert drawing.count(">cosines<") == 1
    held, _, _, line, save, _ = demo.load(photo, "mine", SQUARE, None, 4)
    assert line.startswith("**4 tokens**")
    assert save.visible
    assert Path(demo.save(held, 3).value["path"]).name == "photo-3-tokens.zip"
    held, *_ = demo.load(photo, "cosines", TILED, "ignored", 4)
    *_, drawing = demo.curve(held)
    assert ">cosines<" not in drawing


def test_mistakes_are_told(demo, photo: str, tmp_path: Path) -> None:
    from dove.demo.page import TILED, told

    for event in (demo.auto, lambda none: demo.save(none, 3)):
        with pytest.warns(UserWarning, match="no photo yet"):
            told(event, lambda: "instead")(None)
    assert demo.load(None, "mine", TILED, "", 4)[0] is None
    assert list(demo.curve(None)) == [""]
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"notes\.png: not an image"):
        told(demo.load)(str(tmp_path / "notes.png"), "mine", TILED, "", 4)
