"""``dove paper train bench``: commands on equal terms, a real short run that is cut off and goes on, and what it says."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dove.cli import main
from dove.commands.train import parse as parse_training
from dove.paper.bench import IMAGES, Comparison, load_rows, trained_models
from dove.registry import load_tokenizer
from dove.training.presets import PRESETS
from dove.training.progress import images_seen


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((32, 32)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 photos, of which the trainings keep 512 out."""
    file = tmp_path_factory.mktemp("data") / "images.parquet"
    pq.write_table(pa.table({"image": [{"bytes": png(seed), "path": None} for seed in range(800)]}), file)
    return file


@pytest.mark.parametrize("comparison", ["bench", "ablation"])
def test_every_row_trains_its_preset_after_what_it_builds_on(comparison: Comparison, tmp_path: Path) -> None:
    made: set[str] = set()
    for row in load_rows(comparison=comparison):
        assert row.needs is None or row.needs in made
        made.add(row.name)
        if row.preset:
            config = parse_training(row.command(tmp_path, "images", tmp_path / "net", share=0.5, seed=3)[1:])
            assert config.preset == row.preset
            assert (config.run.steps, config.run.seed) == (round(PRESETS[row.preset].run.steps / 2), 3)
            network = getattr(config.loss, "perceptual_network", "")
            assert ("squeezenet" in network) == bool(getattr(config.loss, "perceptual_weights", None))
        else:
            assert row.fit
            assert row.like in PRESETS


def test_the_ablation_changes_one_thing_at_a_time(tmp_path: Path) -> None:
    rows = {row.name: row for row in load_rows(comparison="ablation") if row.preset}
    configs = {name: parse_training(row.command(tmp_path, "x", tmp_path / "net")[1:]) for name, row in rows.items()}
    recipe = configs["recipe"]
    assert recipe.run.steps * recipe.run.batch_size == IMAGES["ablation"]
    for name, config in configs.items():
        assert (config.run.steps, config.run.seed, config.optim) == (recipe.run.steps, 0, recipe.optim)
        if name in ("recipe", "paper"):
            continue
        old, new = (flatten(dataclasses.asdict(part)) for part in (recipe, config))
        changed = {key for key in new if new[key] != old[key]} - {"output", "loss.perceptual_weights"}
        assert changed == {flag[2:].replace("-", "_") for flag in rows[name].flags if flag.startswith("--")}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_rows_are_made_resumed_and_skipped(
    images: Path, squeezenet_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(images), "--squeezenet", str(squeezenet_weights), "--output", str(tmp_path)]
    flags += ["--only", "flat-colour", "cosines", "vqgan", "alit-2-codes"]
    assert main(["paper", "train", "bench", *flags, "--images", "32"]) == 1
    told = capfd.readouterr()
    assert "alit-2-codes failed: it builds on alit-1-vqgan, which is not finished" in told.err
    assert "1 of 4 rows failed" in told.out
    there, missing = trained_models(tmp_path)
    assert [item.partition("=")[0] for item in there] == [
        "flat colour",
        "cosines",
        "VQGAN-64",
        "DOVE",
        "DOVE+",
        "TiTok-32",
        "ALIT",
    ]
    assert there[2:4] == [f"VQGAN-64={tmp_path / 'vqgan' / 'model'}", "DOVE=dove-bench"]
    assert missing == ["DOVE-Gaussian", "TiTok-8", "TiTok-16"]
    fitted = load_tokenizer(tmp_path / "cosines" / "model").config
    assert (fitted.max_tokens, fitted.token_dim, fitted.quality_target) == (64, 32, 20.0)
    assert images_seen(tmp_path / "vqgan" / "model") == 32
    flags = [*flags[:-1], "--images", "64"]
    assert main(["paper", "train", "bench", *flags]) == 0
    again = capfd.readouterr().out
    assert "cosines: done" in again
    assert images_seen(tmp_path / "vqgan" / "model") == 64
    steps = [json.loads(line)["step"] for line in (tmp_path / "vqgan" / "metrics.jsonl").read_text().splitlines()]
    assert set(steps) == {1, 2}


def test_a_failed_training_does_not_stop_the_others(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    flags = ["--data", str(images), "--squeezenet", str(damaged), "--output", str(tmp_path / "bench")]
    assert main(["paper", "train", "bench", *flags, "--only", "vqgan", "cosines"]) == 1
    assert "vqgan failed: dove train ended with status 2" in capfd.readouterr().err
    assert (tmp_path / "bench" / "cosines" / "model" / "model.safetensors").is_file()


def test_images_that_a_shipped_model_has_seen_are_on_its_card(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 2, "images": 20}\n')
    (run / "config.yaml").write_text("start: checkpoint\ncheckpoint: alit-bench\n")
    assert images_seen(run / "model") == 300_020


def test_images_seen_adds_up_over_stages_or_is_not_known(tmp_path: Path) -> None:
    for name, images, settings in (
        ("first", 10, "data: photos"),
        ("second", 5, f"stage_one: {tmp_path / 'first' / 'model'}"),
        ("third", 2, "start: checkpoint\ncheckpoint: elsewhere"),
        ("fourth", 3, "start: random\ncheckpoint: dove-tiny"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(settings)
        (tmp_path / name / "metrics.jsonl").write_text(
            f'{{"step": 1, "images": 1}}\n{{"step": 2, "images": {images}}}\n{{"st'
        )
    assert images_seen(tmp_path / "second" / "model") == 15
    assert images_seen(tmp_path / "third" / "model") is None
    assert images_seen(tmp_path / "fourth" / "model") == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "titok-9"], "there are flat-colour, cosines"),
        (["--data", "x"], "--squeezenet"),
        (["--data", "x", "--squeezenet", "y", "--images", "0"], "--images 0 must be at least 1"),
    ],
)
def test_the_bench_says_what_it_needs(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOVE_SQUEEZENET", raising=False)
    assert main(["paper", "train", "bench", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "told"), [("--data", "no such file or folder"), ("--squeezenet", "there is no file")])
def test_what_is_missing_for_all_rows_is_told_once(
    flag: str, told: str, images: Path, squeezenet_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = {"--data": str(images), "--squeezenet": str(squeezenet_weights), flag: str(tmp_path / "none")}
    arguments = [part for pair in flags.items() for part in pair]
    assert main(["paper", "train", "bench", *arguments, "--output", str(tmp_path / "bench")]) == 2
    captured = capfd.readouterr()
    assert told in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not (tmp_path / "bench").exists()


def test_a_row_whose_last_checkpoint_is_missing_is_not_done(tmp_path: Path) -> None:
    (row,) = load_rows(["vqgan"])
    folder = tmp_path / row.name
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"1")
    (folder / "metrics.jsonl").write_text(json.dumps({"step": row.steps(1.0)}) + "\n")
    (folder / "checkpoints" / "step-00006000").mkdir(parents=True)
    assert not row.done(tmp_path)
    (folder / "checkpoints" / f"step-{row.steps(1.0):08d}").mkdir()
    assert row.done(tmp_path)
