"""Quality by number of tokens: the numbers, the comparison with fixed lengths, and one encoding for all lengths."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.baselines.alit import ALIT
from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig, TransformerConfig
from dove.baselines.flat_colour import FlatColour, FlatColourConfig
from dove.baselines.titok import make_titok
from dove.checkpoint import save_checkpoint
from dove.cli import main
from dove.errors import UserError
from dove.evaluation import reconstruction
from dove.evaluation.common import Subject, choose_policies
from dove.evaluation.reconstruction import compare_with_fixed
from dove.lengths import Fixed
from dove.models.prior import PriorCode
from dove.models.token_generator import Prefix, TokenGenerator
from dove.processor import ImageProcessor
from dove.tokenizer import Dove


@pytest.fixture
def desk(tiny_dove: Dove, tmp_path: Path) -> Path:
    """A checkpoint and six pictures of 16 px."""
    tiny_dove.save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        corners = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        corners.resize((16, 16), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def evaluate(desk: Path, *flags: str) -> int:
    common = ["--model", str(desk / "model"), "--data", str(desk / "photos"), "--output", str(desk / "out")]
    return main(["evaluate", "reconstruction", *common, *flags])


def rows(desk: Path) -> dict[object, dict[str, float]]:
    report = json.loads((desk / "out" / "reconstruction.json").read_text())
    return {row["num_tokens"]: row for row in report["rows"]}


def test_numbers_agree_with_a_direct_computation(desk: Path, tiny_dove: Dove) -> None:
    assert evaluate(desk, "--num-tokens", "3") == 0
    images = ImageProcessor(16)([desk / "photos" / f"{number}.png" for number in range(6)])
    difference = (tiny_dove.decode(tiny_dove.encode(images, 3)) - images) / 2
    errors = difference.square().mean((1, 2, 3)).double().numpy()
    row = rows(desk)[3]
    assert row["mse"] == pytest.approx(errors.mean(), rel=1e-4)
    assert row["l1"] == pytest.approx(difference.abs().mean().item(), rel=1e-4)
    assert row["psnr"] == pytest.approx((-10 * np.log10(errors)).mean(), abs=1e-3)
    assert row["psnr_std"] == pytest.approx((-10 * np.log10(errors)).std(), abs=1e-3)
    assert row["mse_worst10"] == pytest.approx(errors.max(), rel=1e-4)


def test_default_rows_files_and_provenance(desk: Path) -> None:
    assert evaluate(desk) == 0
    assert set(rows(desk)) == {1, 2, 4, 8, 16, "auto", "fixed@auto-mean"}
    report = json.loads((desk / "out" / "reconstruction.json").read_text())
    assert {"command", "models", "data", "seed", "versions", "hardware", "commit"} <= set(report["provenance"])
    assert report["auto_vs_fixed"][0]["num_tokens"] == "auto"
    assert (desk / "out" / "reconstruction.csv").read_text().startswith("model,num_tokens,mean_length,psnr")
    with Image.open(desk / "out" / "reconstruction.png") as picture:
        assert picture.width > 300


def test_the_generator_runs_once_for_all_lengths(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = TokenGenerator.forward

    def counting(self: TokenGenerator, prefix: Prefix, code: PriorCode, num_tokens: int | None = None) -> object:
        if not prefix.embeddings.is_meta:  # there operations are counted
            calls.append(len(prefix.embeddings))
        return original(self, prefix, code, num_tokens)

    monkeypatch.setattr(TokenGenerator, "forward", counting)
    assert evaluate(desk, "--num-tokens", "1", "2", "4", "8", "16") == 0
    assert calls == [6]


def test_saved_images_have_a_folder_for_each_length(desk: Path) -> None:
    assert evaluate(desk, "--num-tokens", "2", "auto", "--save-images") == 0
    folders = {path.name for path in (desk / "out" / "images").glob("*/*")}
    assert {"original", "2", "auto"} <= folders


def test_the_comparison_speaks_of_deviation_and_the_worst_tenth() -> None:
    adaptive = {"model": "m", "num_tokens": "auto", "mean_length": 5.2, "psnr_std": 1.0, "mse_worst10": 0.01}
    fixed = {"psnr_std": 2.0, "mse_worst10": 0.1}
    found = compare_with_fixed(adaptive, fixed, 5)
    assert found["psnr_std_ratio"] == 0.5
    assert found["worst10_gain_db"] == pytest.approx(10)


def test_a_model_s_operations_are_counted_once(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(desk, "--num-tokens", "3") == 0
    report = desk / "out" / "reconstruction.json"
    (first,) = [row["multiply_adds"] for row in json.loads(report.read_text())["rows"]]
    monkeypatch.setattr(reconstruction, "tokenizer_operations", None)
    assert evaluate(desk, "--num-tokens", "3", "--limit", "2") == 0
    assert [row["multiply_adds"] for row in json.loads(report.read_text())["rows"]] == [first]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-tokens", "99"], "1 to 16 tokens"),
        (["--limit", "0"], "--limit 0"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "x=dove-tiny", "x=cosines"], "several models are called x"),
    ],
)
def test_bad_options_are_named(flags: list[str], message: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(desk, *flags) == 2
    assert message in capsys.readouterr().err


def test_models_of_other_kinds_get_the_rows_that_they_have(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, num_layers=1, num_heads=2)
    titok = TiTokConfig(
        transformer=transformer, num_tokens=4, image_size=16, patch_size=4, codebook_size=16, head="pixels"
    )
    save_checkpoint(desk / "titok", titok, make_titok(titok).state_dict())
    vqgan = MaskgitVQGANConfig(
        image_size=16, hidden_channels=8, channel_mult=(1, 1), num_res_blocks=1, latent_channels=8, norm_groups=4
    )
    alit = ALITConfig(
        transformer=transformer, tokens_per_rollout=4, num_rollouts=3, patch_size=2, codebook_size=16, vqgan=vqgan
    )
    save_checkpoint(desk / "alit", alit, ALIT(alit).state_dict())
    models = ["--model", f"ours={desk / 'model'}", f"TiTok={desk / 'titok'}", f"ALIT={desk / 'alit'}"]
    common = ["--data", str(desk / "photos"), "--output", str(desk / "out")]
    assert main(["evaluate", "reconstruction", *models, *common, "--num-tokens", "4", "8", "auto"]) == 0
    report = json.loads((desk / "out" / "reconstruction.json").read_text())
    found = {(row["model"], row["num_tokens"]) for row in report["rows"]}
    adaptive = {(model, label) for model in ("ours", "ALIT") for label in (4, 8, "auto", "fixed@auto-mean")}
    assert found == adaptive | {("TiTok", 4)}
    bits = {row["model"]: row.get("bits_a_token") for row in report["rows"]}
    assert bits == {"ours": None, "TiTok": 4.0, "ALIT": 4.0}
    assert all(row["multiply_adds"] > row["parameters"] > 0 for row in report["rows"] if row["num_tokens"] == 8)
    subject = Subject("ALIT", ALIT(alit), torch.device("cpu"), "0")
    assert choose_policies(subject, ["3", "8", "64"]) == [Fixed(8)]
    assert "ALIT has 4, 8, 12 tokens an image: without 3, 64" in capsys.readouterr().err
    with pytest.raises(UserError, match="ALIT has 4, 8, 12 tokens an image; --num-tokens 3 asks for none of these"):
        choose_policies(subject, ["3"])


def test_rows_say_what_a_fair_comparison_needs(desk: Path) -> None:
    FlatColour(FlatColourConfig(image_size=16)).save_pretrained(desk / "flat")
    (desk / "run").mkdir()
    (desk / "model").rename(desk / "run" / "model")
    (desk / "run" / "config.yaml").write_text("data: photos")
    (desk / "run" / "metrics.jsonl").write_text('{"step": 1, "images": 70}')
    models = ["--model", f"flat colour={desk / 'flat'}", f"ours={desk / 'run' / 'model'}"]
    common = ["--data", str(desk / "photos"), "--output", str(desk / "out"), "--num-tokens", "1", "16"]
    assert main(["evaluate", "reconstruction", *models, *common]) == 0
    flat, *ours = json.loads((desk / "out" / "reconstruction.json").read_text())["rows"]
    assert (flat["numbers_a_token"], flat["parameters"]) == (3, 0)
    assert [(row["images_seen"], row["image_size"]) for row in ours] == [(70, 16)] * 2
