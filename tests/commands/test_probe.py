"""``dove evaluate probe`` as users run it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dove.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOVE_DATA", str(tmp_path / "data"))


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Dark and bright pictures in class folders, 16 to train on and 6 to test on."""
    generator = np.random.default_rng(0)
    for role, count in (("train", 16), ("test", 6)):
        for number in range(count):
            name, top = ("bright", 256) if number % 2 else ("dark", 60)
            path = tmp_path / "shades" / role / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(top - 60, top, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path / "shades"


@pytest.fixture
def flags(checkpoint: str, shades: Path, tmp_path: Path) -> list[str]:
    paths = ["--train-data", str(shades / "train"), "--data", str(shades / "test")]
    return ["evaluate", "probe", "--model", checkpoint, *paths, "--output", str(tmp_path / "out")]


def report(tmp_path: Path) -> dict[str, object]:
    return json.loads((tmp_path / "out" / "probe.json").read_text())


def test_mlp_by_length(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--num-tokens", "1", "8", "auto"]) == 0
    found = report(tmp_path)
    rows = found["rows"]
    assert [row["num_tokens"] for row in rows] == [1, 8, "auto"]
    assert {"model", "dataset", "num_tokens", "layer", "top1", "n_train", "n_test"} <= set(rows[0])
    assert {(row["layer"], row["dataset"], row["n_train"], row["n_test"]) for row in rows} == {
        ("tokens", "shades", 16, 6)
    }
    assert [row["mean_length"] for row in rows[:2]] == [1, 8]
    assert found["largest_class"] == 50
    assert set(found["provenance"]["data"]) == {"train", "test"}
    with (tmp_path / "out" / "probe.csv").open() as file:
        assert [row["num_tokens"] for row in csv.DictReader(file)] == ["1", "8", "auto"]
    with Image.open(tmp_path / "out" / "probe.png") as picture:
        assert picture.width > 300


def test_linear_by_layer(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--kind", "linear", "--layer", "latents", "all", "tokens"]) == 0
    rows = report(tmp_path)["rows"]
    assert [row["layer"] for row in rows] == ["latents", 1, 2, "tokens"]
    assert [row["num_tokens"] for row in rows] == [None, None, None, 16]
    assert rows[0]["top1"] == 100  # brightness is in the latents' mean
    assert all(row["C"] > 0 for row in rows)
    best = report(tmp_path)["best_layers"][0]
    assert best["layer"] in (1, 2)
    assert "best layer by validation" in capsys.readouterr().out


def test_known_names_find_local_folders_for_both_roles(
    flags: list[str], shades: Path, tmp_path: Path, checkpoint: str
) -> None:
    (tmp_path / "data").mkdir()
    shades.rename(tmp_path / "data" / "stl10")
    arguments = ["--model", checkpoint, "--data", "stl10", "--num-tokens", "4", "--output", str(tmp_path / "out")]
    assert main(["evaluate", "probe", *arguments]) == 0
    assert report(tmp_path)["rows"][0]["dataset"] == "stl10"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--data", "mnist"], "known are cifar10, cifar100, dtd, fgvc-aircraft, food101, stl10, sun397, imagenet100"),
        (["--num-tokens", "99"], "1 to 16 tokens an image; --num-tokens 99 asks for none of these"),
        (["--kind", "linear", "--layer", "7"], "has layers 1 to 2"),
        (["--kind", "linear", "--num-tokens", "4"], "--num-tokens has no effect"),
        (["--layer", "1"], "--layer is for --kind linear"),
        (["--train-limit", "3"], "train: "),
        (["--train-limit", "0"], "limit=0"),
    ],
)
def test_bad_input_is_one_line(
    wrong: list[str], message: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, *wrong]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("dove: ")
    assert error.count("\n") == 1


def test_training_images_have_to_be_named(
    checkpoint: str, shades: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "probe", "--model", checkpoint, "--data", str(shades / "test")]) == 2
    assert "pass --train-data" in capsys.readouterr().err


def test_unreadable_images_are_the_last_word(
    flags: list[str], shades: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shades / "train" / "dark" / "0.png").write_bytes(b"no picture")
    assert main([*flags, "--num-tokens", "4"]) == 2
    assert "1 of 16 images could not be read" in capsys.readouterr().err
    assert report(tmp_path)["rows"][0]["n_train"] == 15


def test_features_of_the_same_images_under_other_names_are_told_apart(
    flags: list[str], shades: Path, tmp_path: Path
) -> None:
    linear = ["--kind", "linear", "--layer", "1"]
    assert main([*flags, *linear]) == 0
    before = report(tmp_path)["rows"]
    for file in sorted((shades / "train").rglob("*.png")):
        file.rename(file.with_name(f"renamed-{file.name}"))
    assert main([*flags, *linear]) == 0
    assert report(tmp_path)["rows"] == before
