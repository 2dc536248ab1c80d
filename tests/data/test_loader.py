"""Batches keep the order, and collect what cannot be read from every worker."""

from pathlib import Path

import pytest
import torch

from dove.data.images import open_images
from dove.data.loader import ImageLoader
from dove.errors import UserError
from dove.processor import ImageProcessor


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_without_the_bad_ones(num_workers: int, mixed_folder: Path) -> None:
    dataset = open_images(mixed_folder, on_error="skip")
    loader = ImageLoader(dataset, ImageProcessor(8), batch_size=3, num_workers=num_workers)
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
