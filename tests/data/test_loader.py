"""Batches keep the order, and collect what cannot be read."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dove.data.images import open_images
from dove.data.loader import ImageLoader, loader_watched, read_ahead
from dove.errors import UserError
from dove.processor import ImageProcessor


def test_batches_without_the_bad_ones(mixed_folder: Path) -> None:
    dataset = open_images(mixed_folder, on_error="skip")
    loader = ImageLoader(dataset, ImageProcessor(8), batch_size=3)
    batches = list(loader)
    assert len(loader) == 3
    assert [len(batch) for batch in batches] == [3, 1]
    assert [key for batch in batches for key in batch.keys] == [f"{number}-good.png" for number in range(4)]
    assert batches[0].pixels.shape == (3, 3, 8, 8)
    assert torch.allclose(batches[0].pixels[:, 0, 0, 0], torch.tensor([0, 40, 80]) / 127.5 - 1)
    assert len(batches[0].metadata) == 3
    assert [item.key for item in loader.unreadable] == ["empty.jpg", "huge.png", "text.png", "truncated.png"]


def test_raises_when_asked_to(mixed_folder: Path) -> None:
    with pytest.raises(UserError, match="empty"):
        list(ImageLoader(open_images(mixed_folder), ImageProcessor(8)))


def test_the_next_batch_is_made_while_the_caller_has_the_present_one() -> None:
    second_made = threading.Event()

    def batches() -> Iterator[int]:
        yield 1
        second_made.set()
        yield 2
        raise UserError("the third is bad")

    coming = read_ahead(batches())
    assert next(coming) == 1
    assert second_made.wait(10)
    assert next(coming) == 2
    with pytest.raises(UserError, match="third"):
        next(coming)


def test_reading_ahead_keeps_the_order_and_can_be_left() -> None:
    assert list(read_ahead(iter(range(7)))) == list(range(7))
    assert list(read_ahead(iter([]))) == []
    for number in read_ahead(iter(range(1000))):
        if number == 3:
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_an_error_in_a_worker_process_is_told_in_its_last_line() -> None:
    told = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\ndove.errors.UserError: a.png: damaged\n"
    )
    for text in (told, "a.png: damaged"):
        with pytest.raises(UserError, match=r"^a.png: damaged$"), loader_watched():
            raise UserError(text)
