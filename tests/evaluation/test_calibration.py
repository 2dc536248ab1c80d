"""Predicted against measured quality."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.cli import main
from dove.config import DoveConfig
from dove.evaluation.calibration import Calibration, Outcome, decibels, interpolate, summarise
from dove.tokenizer import Dove


def test_interpolation_keeps_what_was_measured_and_is_straight_in_logarithms() -> None:
    curves = interpolate(np.array([[0.1, 0.025]]), [1, 16], 16)
    assert curves[0, [0, 15]] == pytest.approx([0.1, 0.025])
    assert curves[0, 3] == pytest.approx(0.05)  # half-way from 1 to 16, half-way from 0.1 to 0.025


def test_rows_say_how_far_off_and_which_share() -> None:
    predicted = np.array([[20.0, 25.0], [22.0, 30.0]])
    measured = 10 ** -(np.array([[21.0, 25.0], [22.0, 28.0]]) / 10)
    outcomes = [
        Outcome("psnr>=24", np.array([2, 2]), 10 ** -(np.array([25.0, 24.0]) / 10), 0.5),
        Outcome("budget 4", np.array([1, 2]), np.array([0.01, 0.02]), 0.1),
        Outcome("known 4", np.array([2, 1]), np.array([0.01, 0.01]), 0.0),
        Outcome("fixed 4", np.array([1, 2]), np.array([0.02, 0.04]), 0.0),
    ]
    rows = summarise(Calibration("m", [1, 2], predicted, measured, outcomes))
    assert [row["error"] for row in rows[:2]] == pytest.approx([0.5, 1.0])
    assert rows[1]["correlation"] == pytest.approx(1)
    assert rows[2]["missed_by"] == pytest.approx(0.5)
    assert rows[3]["gain_over_fixed"] == pytest.approx(10 * np.log10(2))
    assert rows[3]["share_of_known"] == pytest.approx(0.75)
    assert rows[4]["share_of_known"] == pytest.approx(1)
    assert "share_of_known" not in rows[5]


def test_decibels_of_equal_images_are_finite() -> None:
    assert decibels(np.array([0.0, 0.01])).tolist() == pytest.approx([100, 20])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        noise = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8) // (number + 1)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_the_command_writes_rows_and_a_chart(tiny_config: DoveConfig, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    Dove(replace(tiny_config, eos_head="quality")).save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--lengths", "2", "4"]
    more = ["--psnr", "10", "--budgets", "3.5", "--batch-size", "2"]
    assert main(["evaluate", "calibration", "--data", str(photos), *flags, *more]) == 0
    rows = json.loads((tmp_path / "out" / "calibration.json").read_text())["rows"]
    names = [row["num_tokens"] for row in rows]
    assert names == [1, 2, 4, 16, "psnr>=10", "search psnr>=10", "budget 3.5", "known 3.5", "fixed 3.5"]
    assert {row["mean_length"] for row in rows[-3:]} == {17 / 5}
    with Image.open(tmp_path / "out" / "calibration.png") as picture:
        assert picture.width > 600


def test_models_that_predict_no_quality_are_refused(
    tiny_dove: Dove, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "calibration", "--data", str(photos), *flags]) == 2
    assert "predicts no quality" in capsys.readouterr().err


def test_budgets_below_a_token_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "calibration", "--data", str(photos), "--budgets", "0.5", "--lengths", "2"]) == 2
    assert "budget 0.5" in capsys.readouterr().err
