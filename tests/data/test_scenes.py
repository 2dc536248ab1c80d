"""Scenes of captioned cut-outs on photos, and the table of cut-outs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dove.cli import main
from dove.data.config import SceneConfig
from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.scenes import CutOut, Scenes, caption_words, load_cutouts, phrases, scene_draws
from dove.data.stamps import convert_stamps
from dove.errors import UserError

COLOURS = {"pear": (255, 0, 0), "boat": (0, 255, 0), "lamp": (0, 0, 255), "tower": (255, 255, 0), "hat": (0, 255, 255)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Two grey photos."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.fromarray(np.full((20, 30, 3), 100 + number, dtype=np.uint8)).save(root / f"{number}.png")
    return open_images(str(root))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of stamps: plain rectangles in a transparent frame, their captions beside them."""
    root = tmp_path / "stamps" / "things"
    root.mkdir(parents=True)
    for name, colour in COLOURS.items():
        pixels = np.zeros((140, 120, 4), dtype=np.uint8)
        pixels[10:120, 20:100] = (*colour, 255)
        Image.fromarray(pixels).save(root / f"old_{name}.png")
        (root / f"old_{name}.txt").write_text(f"A {name}.\nfr.utf8=Une chose.\n")
    return tmp_path / "stamps"


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> str:
    """The table of that folder."""
    convert_stamps(folder, tmp_path / "stamps.parquet")
    return str(tmp_path / "stamps.parquet")


def test_boxes_hold_what_the_query_names(photos: ImageDataset, table: str) -> None:
    scenes = Scenes(photos, load_cutouts(table), 32, SceneConfig(curriculum=0), seed=3)
    counts = set()
    for index in range(30):
        example = scenes[0, index]
        counts.add(len(example.asks))
        for ask in example.asks:
            ((x, y, width, height),) = ask.boxes
            inside = example.image[:, int(y) : int(y + height), int(x) : int(x + width)]
            colour = COLOURS[next(name for name in COLOURS if name in ask.query)]
            assert inside.shape[1:] == (height, width)
            assert (inside - torch.tensor(colour).view(3, 1, 1) / 127.5 + 1).abs().max() < 0.02
            assert 0.3 * 32 - 1 <= max(width, height) <= 0.5 * 32 + 1
    assert counts == {2, 3, 4}


def test_scenes_follow_from_seed_epoch_and_index(photos: ImageDataset, table: str) -> None:
    one, same, other = (Scenes(photos, load_cutouts(table), 16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one[2, 5].image, same[2, 5].image)
    assert one[2, 5].asks == same[2, 5].asks
    assert not torch.equal(one[2, 5].image, other[2, 5].image)
    assert not torch.equal(one[2, 5].image, one[3, 5].image)


def test_scenes_of_evaluation_are_those_of_no_training(photos: ImageDataset, table: str) -> None:
    trained = [Scenes(photos, load_cutouts(table), 16, SceneConfig(curriculum=0), seed=seed) for seed in range(5)]
    for seed in range(3):
        scenes = Scenes(photos, load_cutouts(table), 16, SceneConfig(curriculum=0), seed=seed, evaluation=True)
        for sample in ((0, 0), (0, 1), (1, 0)):
            assert not any(torch.equal(scenes[sample].image, training[sample].image) for training in trained)


@given(seed=st.integers(0, 5), epoch=st.integers(0, 3), index=st.integers(0, 100), other=st.integers(0, 2**33))
def test_no_seed_of_a_training_gives_the_draws_of_an_evaluation(seed: int, epoch: int, index: int, other: int) -> None:
    evaluated = scene_draws(seed, (epoch, index), evaluation=True).integers(2**62)
    assert evaluated != scene_draws(other, (epoch, index), evaluation=False).integers(2**62)


def test_a_curriculum_begins_with_two_large_things(photos: ImageDataset, table: str) -> None:
    scenes = Scenes(photos, load_cutouts(table), 32, SceneConfig(curriculum=50_000))
    for index in range(10):
        asks = scenes[0, index].asks
        assert len(asks) == 2
        assert all(max(ask.boxes[0][2:]) >= 15 for ask in asks)
    assert max(len(scenes[5, index].asks) for index in range(20)) == 4


def test_a_query_means_one_thing_alone() -> None:
    pear, apple, red = ("yellow", "pear"), ("green", "apple"), ("red", "apple")
    assert {"yellow pear", "the pear", "something yellow"} <= set(phrases(pear, [apple]))
    assert "the apple" in phrases(apple, [pear])
    assert "the apple" not in phrases(apple, [red])
    assert "something green" in phrases(apple, [red])
    assert "something yellow" not in phrases(pear, [("yellow", "car")])
    assert phrases(("apple",), [red]) == []
    assert not any("orange" in text and "something" in text for text in phrases(("orange",), [pear]))


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_captions_become_few_words_in_lower_case(caption: str) -> None:
    words = caption_words(caption)
    assert len(words) <= 6
    assert all(word and word == word.lower() and not word.isspace() for word in words)


def test_words_of_a_caption() -> None:
    assert caption_words("A yellow pear. Eat it!") == ("yellow", "pear")
    assert caption_words("The tender carries water and coal for the engine.")[:2] == ("tender", "carries")


def test_a_share_of_the_captions_is_kept_apart() -> None:
    image = Image.new("RGBA", (2, 2))
    apart = [CutOut(image, (str(number),)).held_out for number in range(400)]
    assert 25 < sum(apart) < 80


def test_stamps_become_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("A hole.")
    Image.new("RGBA", (4, 4), "red").save(folder / "silent.png")
    output = tmp_path / "out" / "table.parquet"
    assert main(["data", "convert", "stamps", "--images", str(folder), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "5 captions of 5 images" in said
    assert "1 pictures without a caption (such as silent.png)" in said
    cutouts = load_cutouts(str(output))
    assert [cutout.words for cutout in cutouts] == sorted((name,) for name in COLOURS)
    assert all(cutout.image.mode == "RGBA" and max(cutout.image.size) <= 96 for cutout in cutouts)
    assert open_images(str(output)).raw(0).metadata["name"] == "old boat"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["stamps", "--images", "nowhere"], "is no folder"),
        (["stamps", "--images", ".", "--part", "test"], "--images alone"),
        (["coco", "--images", "."], "coco needs --annotations"),
    ],
)
def test_flags_that_do_not_fit(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "convert", *flags, "--output", str(tmp_path / "x.parquet")]) == 2
    assert message in capsys.readouterr().err


def test_cutouts_that_do_not_do(photos: ImageDataset, table: str, tmp_path: Path) -> None:
    one = load_cutouts(table)[0]
    swapped = [replace(one, words=words) for words in (("apple", "red"), ("red", "apple"))]
    for cutouts in ([one], swapped):
        with pytest.raises(UserError, match="captions differ in a word"):
            Scenes(photos, cutouts, 16)
    Image.new("RGB", (2, 2)).save(tmp_path / "plain.png")
    with pytest.raises(UserError, match="has no caption"):
        load_cutouts(str(tmp_path / "plain.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.png with a caption"):
        convert_stamps(tmp_path / "empty", tmp_path / "x.parquet")


@pytest.mark.parametrize("wrong", [{"things": 1}, {"sides": (0.5, 0.4)}, {"sides": (0.3, 0.9)}, {"curriculum": -1}])
def test_compositions_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        SceneConfig(**wrong)  # type: ignore[arg-type]
