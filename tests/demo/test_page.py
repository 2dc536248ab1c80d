"""The demo's page and its events, without a browser; where gradio is installed (`make test-e2e`)."""

from pathlib import Path

import pytest
from PIL import Image

from dove.tokenizer import Dove

pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def demo(tiny_dove: Dove, tmp_path: Path):
    from dove.demo.page import Demo

    tiny_dove.save_pretrained(tmp_path / "model")
    return Demo(name=str(tmp_path / "model"), model=tiny_dove, others={"again": tiny_dove}, folder=tmp_path)


def test_the_events_of_a_visit(demo, tmp_path: Path) -> None:
    from dove.demo.page import build, told

    build(demo)
    photo = tmp_path / "photo.png"
    Image.effect_noise((24, 18), 60).convert("RGB").save(photo)
    held, slider, original, rebuilt, line, beside = demo.load(str(photo), None)
    assert original.size == rebuilt.size == (16, 16)
    assert slider.value == held.main.auto == demo.auto(held)
    assert f"{held.main.auto} of 16 tokens" in line
    assert beside is not None
    picture, line, _ = demo.show(held, 3)
    assert picture is held.main.pictures[2]
    assert "3 of 16 tokens" in line
    assert demo.reach(held, 0) == 1
    assert demo.reach(held, 99) == 16
    assert Path(demo.save(held, 3).value["path"]).name == "photo-3-tokens.zip"
    assert "tokens** for 4 tiles" in demo.tiles(held, "2")[2]
    for event in (demo.auto, lambda none: demo.reach(none, None)):
        with pytest.warns(UserWarning, match="photo|quality"):
            told(event, lambda: "instead")(None)
    assert demo.load(None, "")[0] is None
