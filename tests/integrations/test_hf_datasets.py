"""Tokens in and out of ``datasets``."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Image, disable_caching, disable_progress_bars
from PIL import Image as PillowImage

from dove.errors import UserError
from dove.integrations.hf_datasets import add_tokens, read_tokens
from dove.processor import ImageProcessor
from dove.tokenizer import Dove

disable_caching()
disable_progress_bars()


@pytest.fixture
def photos() -> Dataset:
    generator = np.random.default_rng(0)
    pictures = [PillowImage.fromarray(generator.integers(0, 256, (17, 20, 3), dtype=np.uint8)) for _ in range(3)]
    return Dataset.from_dict({"image": pictures, "label": [4, 5, 6]}).cast_column("image", Image())


def test_tokens_go_in_and_come_out(photos: Dataset, tiny_dove: Dove) -> None:
    encoded = add_tokens(photos, tiny_dove, "auto", batch_size=2)
    assert encoded["label"][:] == [4, 5, 6]
    expected = tiny_dove.encode(ImageProcessor(16)([row["image"] for row in photos]), "auto")
    tokens = read_tokens(encoded, tiny_dove.max_tokens)
    assert torch.equal(tokens.lengths, expected.lengths)
    assert encoded["length"][:] == expected.lengths.tolist()
    torch.testing.assert_close(tokens.values, expected.values, atol=1e-5, rtol=1e-5)


def test_wrong_columns_are_named(photos: Dataset, tiny_dove: Dove) -> None:
    with pytest.raises(UserError, match="no column 'photo'; it has image, label"):
        add_tokens(photos, tiny_dove, image_column="photo")
    with pytest.raises(UserError, match="takes no queries"):
        add_tokens(photos, tiny_dove, query_column="label")
    with pytest.raises(UserError, match="no column 'tokens'"):
        read_tokens(photos, 16)
