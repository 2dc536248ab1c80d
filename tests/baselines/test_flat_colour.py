"""The mean colour as a tokenizer: the best constant, and a checkpoint like any other."""

from pathlib import Path

import pytest
import torch

from dove.baselines.flat_colour import FlatColour, FlatColourConfig
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.registry import load_tokenizer


def test_no_other_constant_is_nearer(tmp_path: Path) -> None:
    FlatColour(FlatColourConfig(image_size=8)).save_pretrained(tmp_path)
    model = load_tokenizer(tmp_path)
    assert isinstance(model, Tokenizer)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = model.encode(images)
    assert tokens.values.shape == (4, 1, 3)
    rebuilt = model.decode(tokens)
    assert rebuilt.shape == images.shape
    assert torch.equal(rebuilt[..., 0, 0], rebuilt[..., -1, -1])
    error = (rebuilt - images).square().mean()
    assert all((rebuilt + step - images).square().mean() > error for step in (-0.02, 0.02))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match="at least 1"):
        FlatColourConfig(image_size=0)
    with pytest.raises(UserError, match=r"images are \(1, 3, 8, 8\); this model takes"):
        FlatColour(FlatColourConfig(image_size=16)).encode(torch.zeros(1, 3, 8, 8))
