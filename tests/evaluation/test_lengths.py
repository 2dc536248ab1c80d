"""The study of lengths."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d

from dove.cli import main
from dove.evaluation.lengths import LengthStudy, laplacian_variance, summarise
from dove.tokenizer import Dove


def study(lengths: list[int], complexity: list[float]) -> LengthStudy:
    return LengthStudy("m", 64, np.array(lengths), np.array(complexity), {1: np.ones(len(lengths))}, [])


def test_laplacian_variance_is_that_of_the_kernel() -> None:
    image = torch.rand(1, 3, 12, 12) * 2 - 1
    grey = ((image[0] + 1) / 2 * 255).permute(1, 2, 0).double().numpy() @ np.array([0.299, 0.587, 0.114])
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = convolve2d(np.pad(grey, 1, mode="symmetric"), kernel, mode="valid").var()
    assert laplacian_variance(image)[0] == pytest.approx(expected, rel=1e-5)


def test_lengths_that_follow_complexity_correlate() -> None:
    found = summarise(study([1, 2, 4, 8], [10.0, 20.0, 40.0, 80.0]))
    assert found["pearson"] == pytest.approx(1)
    assert found["spearman"] == pytest.approx(1)
    assert found["quantiles"]["p50"] == 3


def test_constant_images_and_equal_lengths_give_no_correlation() -> None:
    found = summarise(study([3, 3, 3], [0.0, 5.0, 9.0]))
    assert found["pearson"] is None
    assert found["constant_images"] == 1
    assert summarise(study([1, 5, 9], [0.0, 0.0, 0.0]))["pearson_log"] is None


def test_the_command_writes_numbers_and_pictures(
    tiny_dove: Dove, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        noise = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8) // (number + 1)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "lengths", "--data", str(tmp_path / "photos"), *flags]) == 0
    row = json.loads((tmp_path / "out" / "lengths.json").read_text())["rows"][0]
    assert {"mean", "quantiles", "pearson", "pearson_log", "spearman"} <= set(row)
    assert set(row["loss_by_length"]) == {"1", "2", "4", "8", "16"}
    for name in ("lengths.png", "lengths-examples.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 200


def test_one_image_is_refused(tiny_dove: Dove, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "lengths", "--data", str(tmp_path / "one.png"), *flags]) == 2
    assert "at least 2 images" in capsys.readouterr().err
