"""The Auto classes of transformers load a checkpoint folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

import dove.integrations.automodel as automodel
from dove.errors import UserError
from dove.processor import ImageProcessor
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove


@pytest.mark.parametrize("kind", ["Dove", "QDove"])
def test_auto_classes_load_a_checkpoint_folder(tiny_dove: Dove, tiny_qdove: QDove, tmp_path: Path, kind: str) -> None:
    saved = tiny_qdove if kind == "QDove" else tiny_dove
    saved.save_pretrained(tmp_path)
    automodel.DoveImageProcessor(image_size=16).save_pretrained(tmp_path)
    model, processor = AutoModel.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)
    assert type(model).__name__ == f"{kind}Model"
    photos = [np.random.default_rng(seed).integers(0, 256, (18, 20, 3), dtype=np.uint8) for seed in (0, 1)]
    inputs = processor(photos, return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], ImageProcessor(16)(photos))
    output, expected = model(**inputs, num_tokens="auto"), saved.encode(inputs["pixel_values"], "auto")
    torch.testing.assert_close(output.last_hidden_state, expected.values)
    assert torch.equal(output.attention_mask.sum(1), expected.lengths)
    if kind == "QDove":
        asked = model(**inputs, num_tokens=4, query="a dog").last_hidden_state
        assert not torch.allclose(asked, output.last_hidden_state)
    else:
        with pytest.raises(UserError, match="takes no queries"):
            model(**inputs, query="a dog")


def test_what_is_returned(tiny_dove: Dove) -> None:
    processor = automodel.DoveImageProcessor(image_size=16)
    photo = np.zeros((16, 16, 3), np.uint8)
    assert isinstance(processor(photo, return_tensors="np")["pixel_values"], np.ndarray)
    assert isinstance(processor(photo, return_tensors=None)["pixel_values"], list)
    assert processor.to_pil(processor(photo)["pixel_values"])[0].size == (16, 16)


def test_features_have_gradients(tiny_dove: Dove, images: torch.Tensor) -> None:
    features = tiny_dove.forward_features(images)
    assert features.shape == (3, 16, tiny_dove.num_features)
    torch.testing.assert_close(features, tiny_dove.encode(images, 16).values)
    features.sum().backward()
    assert next(tiny_dove.vqgan.parameters()).grad is not None
