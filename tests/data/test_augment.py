"""The same pixels for the same (seed, epoch, index), and every index once an epoch."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, gradient
from PIL import Image
from torch.utils.data import DataLoader

from dove.data.augment import ResumableSampler, TrainingImages, augment
from dove.data.config import AugmentConfig
from dove.data.images import open_images
from dove.errors import UserError
from dove.processor import ImageProcessor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        picture = np.roll(gradient(24 + number, 20), number, axis=1)
        (tmp_path / f"{number:02d}.png").write_bytes(encode(Image.fromarray(picture)))
    return tmp_path


@pytest.fixture
def training(folder: Path) -> TrainingImages:
    return TrainingImages(
        open_images(folder), 16, AugmentConfig(crop_probability=0.8, grayscale_probability=0.3), seed=3
    )


def load(training: TrainingImages, start: int, count: int, num_workers: int = 0) -> torch.Tensor:
    sampler = ResumableSampler(len(training), seed=3, start=start)
    loader = DataLoader(training, batch_size=4, sampler=sampler, num_workers=num_workers)
    return torch.cat(list(islice(loader, count // 4)))


def test_resume_gives_the_same_pixels(training: TrainingImages) -> None:
    everything = load(training, 0, 28)
    assert everything.shape == (28, 3, 16, 16)
    assert torch.equal(load(training, 8, 20), everything[8:])
    assert torch.equal(load(training, 0, 28, num_workers=2), everything)


def test_pixels_follow_from_seed_epoch_and_index(training: TrainingImages, folder: Path) -> None:
    pixels = training[2, 5]
    training[0, 1]
    assert torch.equal(training[2, 5], pixels)
    assert not torch.equal(training[3, 5], pixels)
    assert not torch.equal(TrainingImages(open_images(folder), 16, training.config, seed=4)[2, 5], pixels)


def test_nothing_random_when_all_is_off() -> None:
    picture = Image.fromarray(gradient(40, 30))
    config = AugmentConfig(crop_probability=0.0, grayscale_probability=0.0, flip=False)
    pixels = augment(picture, 16, config, np.random.default_rng(0))
    assert torch.equal(pixels, ImageProcessor(16).preprocess(picture))


def test_flip_and_grey() -> None:
    picture = Image.fromarray(gradient(16, 16))
    plain = ImageProcessor(16).preprocess(picture)
    config = AugmentConfig(crop_probability=0.0, grayscale_probability=0.0)
    flipped = [
        torch.equal(augment(picture, 16, config, np.random.default_rng(seed)), plain.flip(-1)) for seed in range(200)
    ]
    assert 70 < sum(flipped) < 130
    pixels = augment(picture, 16, AugmentConfig(grayscale_probability=1.0), np.random.default_rng(0))
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])


@settings(deadline=None, max_examples=50)
@given(
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    seed=st.integers(0, 2**32),
    scale=st.floats(0.01, 1.0),
    ratio=st.floats(1.0, 2.0),
)
def test_crops_stay_inside(width: int, height: int, seed: int, scale: float, ratio: float) -> None:
    config = AugmentConfig(crop_probability=1.0, crop_scale=scale, crop_ratio=ratio)
    pixels = augment(Image.new("RGB", (width, height), "white"), 8, config, np.random.default_rng(seed))
    assert torch.equal(pixels, torch.ones(3, 8, 8))


def test_unreadable_pictures_are_replaced(mixed_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = TrainingImages(open_images(mixed_folder, on_error="skip"), 8, AugmentConfig(crop_probability=0.0))
    assert round((training[0, 4].unique().item() + 1) * 127.5) in (0, 40, 80, 120)
    assert "empty.jpg" in caplog.text
    with pytest.raises(UserError, match=r"empty\.jpg"):
        TrainingImages(open_images(mixed_folder), 8)[0, 4]
    for path in mixed_folder.glob("*good*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="in a row"):
        training[0, 4]


@settings(deadline=None)
@given(
    num_samples=st.integers(1, 60),
    world_size=st.integers(1, 8),
    start=st.integers(0, 20),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_index_once_an_epoch(num_samples: int, world_size: int, start: int, epochs: int, seed: int) -> None:
    turns = start + -(-num_samples * epochs // world_size)
    ranks = [ResumableSampler(num_samples, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    dealt = [list(islice(rank, turns)) for rank in ranks]
    for epoch in range(epochs):
        indices = [index for pairs in dealt for number, index in pairs if number == epoch]
        assert sorted(indices) == list(range(num_samples))
    later = [
        list(islice(ResumableSampler(num_samples, seed=seed, rank=rank, world_size=world_size, start=start), turns))
        for rank in range(world_size)
    ]
    assert all(part[: turns - start] == whole[start:] for part, whole in zip(later, dealt, strict=True))


def test_more_ranks_see_the_same_images_a_step() -> None:
    def step(world_size: int, batch: int) -> set[tuple[int, int]]:
        ranks = [ResumableSampler(25, rank=rank, world_size=world_size, start=3 * batch) for rank in range(world_size)]
        return {pair for rank in ranks for pair in islice(rank, batch)}

    assert step(1, 12) == step(2, 6) == step(3, 4) == step(12, 1)


def test_no_image_no_sampler() -> None:
    with pytest.raises(UserError, match="no images"):
        ResumableSampler(0)


@settings(deadline=None)
@given(num_samples=st.integers(2, 40), start=st.integers(0, 150), rank=st.integers(0, 1), seed=st.integers(0, 99))
def test_resume_equals_continuing(num_samples: int, start: int, rank: int, seed: int) -> None:
    arguments = {"seed": seed, "rank": rank, "world_size": 2}
    continued = islice(ResumableSampler(num_samples, **arguments), start, start + 50)
    resumed = islice(ResumableSampler(num_samples, **arguments, start=start), 50)
    assert list(continued) == list(resumed)


def test_epochs_and_seeds_differ() -> None:
    pairs = list(islice(ResumableSampler(50, seed=1), 100))
    assert [index for _, index in pairs[:50]] != [index for _, index in pairs[50:]]
    assert pairs != list(islice(ResumableSampler(50, seed=2), 100))


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_probability": 1.5},
        {"grayscale_probability": -0.1},
        {"crop_scale": 0.0},
        {"crop_scale": 2.0},
        {"crop_ratio": 0.5},
    ],
)
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        AugmentConfig(**setting)
