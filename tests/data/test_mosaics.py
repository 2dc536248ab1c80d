"""Scenes made of photos of single objects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.data.config import MosaicConfig
from dove.data.images import open_images
from dove.data.mosaics import SYNONYMS, Mosaics
from dove.errors import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255), "black": (0, 0, 0)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each colour with two plain pictures."""
    root = tmp_path_factory.mktemp("photos")
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), colour, dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("grid", [0.0, 1.0])
def test_boxes_hold_what_the_query_names(photos: Path, grid: float) -> None:
    scenes = Mosaics(open_images(str(photos)), 32, MosaicConfig(grid_share=grid, absent_share=0.5), seed=3)
    for index in range(20):
        example = scenes[0, index % len(scenes)]
        present = 0
        for ask in example.asks:
            name = next(name for name in COLOURS if name in ask.query.split() or name + "?" in ask.query.split())
            for x, y, width, height in ask.boxes:
                inside = example.image[:, int(y) : int(y + height), int(x) : int(x + width)]
                expected = torch.tensor(COLOURS[name]).view(3, 1, 1) / 127.5 - 1
                assert (inside - expected).abs().max() < 1e-5
                present += 1
        assert present == 4 if grid else 1 <= present <= 3


def test_scenes_follow_from_seed_epoch_and_index(photos: Path) -> None:
    one, same, other = (Mosaics(open_images(str(photos)), 16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one[2, 5].image, same[2, 5].image)
    assert one[2, 5].asks == same[2, 5].asks
    assert not torch.equal(one[2, 5].image, other[2, 5].image)
    assert not torch.equal(one[2, 5].image, one[3, 5].image)


def test_a_grid_of_fewer_names_than_places_is_part_empty(photos: Path) -> None:
    scenes = Mosaics(open_images(str(photos)).select([0, 2]), 16, MosaicConfig(grid_share=1.0))
    assert [len(ask.boxes) for ask in scenes[0, 0].asks] == [1, 1]


def test_some_queries_name_what_is_not_there(photos: Path) -> None:
    scenes = Mosaics(open_images(str(photos)), 16, MosaicConfig(absent_share=1.0))
    assert all(sum(not ask.boxes for ask in scenes[0, index].asks) == 1 for index in range(10))


def test_photos_need_names_of_two_kinds(photos: Path) -> None:
    with pytest.raises(UserError, match="at least two names"):
        Mosaics(open_images(str(photos)).select([0, 1]), 16)
    with pytest.raises(UserError, match="has no name"):
        Mosaics(open_images(str(photos / "red")), 16)


def test_synonyms_mean_one_thing() -> None:
    words = [word for words in SYNONYMS.values() for word in words]
    assert len(words) == len(set(words))
    assert not set(words) & set(SYNONYMS)
