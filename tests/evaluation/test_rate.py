"""Bits per image: the quantizer against plain integrals, the command on noise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.integrate import quad

from dove.cli import main
from dove.evaluation.rate import ScalarQuantizer, token_sensitivity
from dove.tokenizer import Dove
from dove.tokens import Tokens


def quantizer(location: float, scale: float, step: float) -> ScalarQuantizer:
    return ScalarQuantizer(*(torch.full((1, 1), value) for value in (location, scale, step)))


@pytest.mark.parametrize("level", [-3, -1, 0, 2])
def test_bits_are_those_of_the_laplace_distribution(level: int) -> None:
    location, scale, step, fineness = 0.7, 1.3, 0.9, 0.5
    width = step * fineness
    low, high = location + (level - 0.5) * width, location + (level + 0.5) * width
    probability, _ = quad(lambda x: math.exp(-abs(x - location) / scale) / (2 * scale), low, high, points=[location])
    bits = quantizer(location, scale, step).bits(torch.tensor([[[level]]]), fineness)
    assert float(bits) == pytest.approx(-math.log2(probability), rel=1e-5)


def test_probabilities_sum_to_one() -> None:
    levels = torch.arange(-60, 61)[:, None, None]
    bits = quantizer(0.0, 1.0, 1.0).bits(levels, 0.4)
    assert float((2.0**-bits).sum()) == pytest.approx(1, abs=1e-5)


def test_rounding_moves_a_number_by_half_a_step_at_most() -> None:
    values = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    fitted = ScalarQuantizer.fit(values, torch.rand(3, 4) + 0.5)
    error = (fitted.values(fitted.levels(values, 0.3), 0.3) - values).abs()
    assert (error <= 0.15 * fitted.step * 1.001).all()
    assert error.max() > 0.1 * fitted.step.min()


def test_what_the_decoder_ignores_costs_next_to_nothing() -> None:
    values = torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0))
    fitted = ScalarQuantizer.fit(values, torch.tensor([[1.0, 0.0]]))
    levels = fitted.levels(values, 0.05)
    assert levels[..., 1].abs().max() == 0
    assert levels[..., 0].abs().max() > 10


def test_sensitivity_is_the_length_of_the_jacobians_columns(tiny_dove: Dove) -> None:
    torch.manual_seed(0)
    values = torch.randn(1, tiny_dove.max_tokens, tiny_dove.config.token_dim)
    jacobian = torch.autograd.functional.jacobian(
        lambda all_values: tiny_dove.reconstruct_from(Tokens(all_values, torch.tensor([16]))), values
    )
    expected = jacobian.flatten(0, 4).square().sum(0).sqrt()
    generator = torch.Generator().manual_seed(0)
    found = token_sensitivity(tiny_dove, values.expand(32, -1, -1), generator)
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.05)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.9


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        noise = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8) // (number + 1)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_the_command_writes_rows_and_a_chart(tiny_dove: Dove, photos: Path, tmp_path: Path) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--num-tokens", "2", "16"]
    more = ["--train-data", str(photos), "--fineness", "0.1", "1", "--qualities", "10", "90", "--batch-size", "3"]
    assert main(["evaluate", "rate", "--data", str(photos), *flags, *more]) == 0
    rows = json.loads((tmp_path / "out" / "rate.json").read_text())["rows"]
    tokens = {(row["num_tokens"], row["setting"]): row for row in rows if row["num_tokens"]}
    assert set(tokens) == {("2 tokens", 0.1), ("2 tokens", 1.0), ("16 tokens", 0.1), ("16 tokens", 1.0)}
    assert tokens["16 tokens", 0.1]["bytes_per_image"] > tokens["16 tokens", 1.0]["bytes_per_image"]
    assert tokens["16 tokens", 0.1]["bytes_per_image"] > tokens["2 tokens", 0.1]["bytes_per_image"]
    files = {(row["model"], row["setting"]): row for row in rows if not row["num_tokens"]}
    assert files["JPEG", 90]["psnr"] > files["JPEG", 10]["psnr"]
    assert files["JPEG without header", 90]["bytes_per_image"] < files["JPEG", 90]["bytes_per_image"] - 100
    assert ("WEBP", 10) in files
    with Image.open(tmp_path / "out" / "rate.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "pass --train-data"),
        (["--train-data", "DIR", "--fineness", "0"], "steps above 0"),
        (["--train-data", "DIR", "--qualities", "101"], "from 1 to 100"),
        (["--train-data", "DIR", "--num-tokens", "17"], "has 1 to 16 tokens"),
    ],
)
def test_bad_options_are_named(
    flags: list[str], message: str, tiny_dove: Dove, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    flags = [str(photos) if flag == "DIR" else flag for flag in flags]
    common = ["--model", str(tmp_path / "model"), "--data", str(photos), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(["evaluate", "rate", *common, *flags]))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
