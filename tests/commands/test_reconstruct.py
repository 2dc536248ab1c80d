"""``dove reconstruct`` and the command line's manners."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from dove.checkpoint import shipped_checkpoints
from dove.cli import main
from dove.config import DoveConfig
from dove.tokenizer import Dove


def test_table_picture_and_json(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, numbers = tmp_path / "out" / "x.png", tmp_path / "out" / "x.json"
    flags = ["--model", checkpoint, "--num-tokens", "2", "auto", "--output", str(output), "--json", str(numbers)]
    assert main(["reconstruct", str(photos), *flags]) == 0
    results = json.loads(numbers.read_text())
    assert len(results) == 7
    assert set(results[0]) == {"path", "query", "rows"}
    assert [row["num_tokens"] for row in results[0]["rows"]] == [2, "auto"]
    assert results[0]["rows"][0]["length"] == 2
    with Image.open(output) as picture:
        assert picture.width > 3 * 192
    assert "mean of 7" in capsys.readouterr().out


@pytest.fixture
def predictive(tiny_config: DoveConfig, tmp_path: Path) -> str:
    """A checkpoint whose head predicts qualities."""
    torch.manual_seed(0)
    model = Dove(replace(tiny_config, eos_head="quality"))
    torch.nn.init.normal_(model.generator.eos_head.projection.weight)  # every image and position gets its own
    model.save_pretrained(tmp_path / "predictive")
    return str(tmp_path / "predictive")


def test_images_share_a_budget(photos: Path, predictive: str, tmp_path: Path) -> None:
    (photos / "a" / "broken.png").write_bytes(b"")
    numbers = tmp_path / "x.json"
    flags = ["--num-tokens", "budget 5", "4", "--output", str(tmp_path / "x.png"), "--json", str(numbers)]
    assert main(["reconstruct", str(photos), "--model", predictive, *flags]) == 2
    lengths = [result["rows"][0]["length"] for result in json.loads(numbers.read_text())]
    assert len(lengths) == 7
    assert sum(lengths) == 5 * 7
    assert len(set(lengths)) > 1


def test_tiles(photos: Path, predictive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_bytes(b"")
    output, numbers = tmp_path / "out" / "x.jpg", tmp_path / "x.json"
    flags = ["--tile", "--num-tokens", "budget 6", "psnr>=7", "auto", "16"]
    written = ["--output", str(output), "--json", str(numbers)]
    assert main(["reconstruct", str(photos), "--model", predictive, *flags, *written]) == 2
    results = json.loads(numbers.read_text())
    assert len(results) == 7
    for result in results:
        assert set(result) == {"path", "query", "rows", "tiles"}
        assert result["tiles"] == 4  # 20 x 24 pixels in tiles of 16
        assert [row["num_tokens"] for row in result["rows"]] == ["budget 6", "psnr>=7", "auto", 16]
        for row in result["rows"]:
            assert row["length"] == sum(map(sum, row["tile_lengths"]))
        assert result["rows"][0]["length"] == 6 * 4
        assert result["rows"][3]["tile_lengths"] == [[16, 16], [16, 16]]
    with Image.open(output) as picture:
        assert picture.format == "JPEG"
    printed = capsys.readouterr()
    assert "64 (16.0 a tile)" in printed.out
    assert "broken.png" in printed.err


def test_the_picture_says_how_many_photos_it_shows(
    photos: Path, predictive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dove.commands.reconstruct.MOST_TILED_ROWS", 2)
    flags = ["--tile", "--num-tokens", "4", "--output", str(tmp_path / "x.png"), "--limit", "3"]
    assert main(["reconstruct", str(photos), "--model", predictive, *flags]) == 0
    assert "(the first 2 images)" in capsys.readouterr().out


def test_unreadable_images_are_named_and_the_rest_goes_on(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("hello")
    numbers = tmp_path / "x.json"
    flags = ["--model", checkpoint, "--num-tokens", "2", "--output", str(tmp_path / "x.png"), "--json", str(numbers)]
    assert main(["reconstruct", str(photos), *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "empty.png" in error
    assert "text.jpg" in error
    assert len(json.loads(numbers.read_text())) == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-tokens", "0"], "num_tokens=0"),
        (["--num-tokens", "-3"], "num_tokens=-3"),
        (["--num-tokens", "17"], "exceeds max_tokens=16"),
        (["--num-tokens", "many"], "'many'"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "weights.pth"], "dove convert"),
        (["--output", "picture.txt"], "picture.txt"),
        (["--device", "quantum"], "quantum"),
        (["--max-side", "400"], "--max-side 400 has no effect without --tile"),
        (["--num-tokens", "4", "--tile", "--max-side", "0"], "--max-side 0 must be at least 1"),
        (["--tile", "--num-tokens", "budget 4"], "predicts PSNR"),
        (["--output", "a.png", "--json", "./a.png"], "--output and --json are both a.png"),
        (["--num-tokens", "9" * 5000], "is not understood"),
        (["--num-tokens", "budget 4"], "predicts PSNR"),
    ],
)
def test_bad_options_give_one_line_and_status_2(
    flags: list[str],
    message: str,
    photos: Path,
    checkpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"x")
    model = [] if "--model" in flags else ["--model", checkpoint]
    assert main(["reconstruct", str(photos), *model, *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("dove: ")
    assert message in lines[0]


@pytest.mark.parametrize("flag", ["--output", "--json"])
def test_no_image_is_written_over(
    flag: str, photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photos / "a" / "1.png"
    before, link = photo.read_bytes(), tmp_path / "link.png"
    link.symlink_to(photo)
    other = [] if flag == "--output" else ["--output", str(tmp_path / "a.png")]
    arguments = ["reconstruct", str(photo), str(photos), "--model", checkpoint, flag, str(link), *other]
    assert main(arguments) == 2
    assert "link.png is one of the images; pass another" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_missing_inputs_are_named(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", str(tmp_path / "nowhere"), "--model", checkpoint]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_unknown_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstuct"]) == 2
    assert "did you mean 'reconstruct'" in capsys.readouterr().err


def test_info_describes_a_checkpoint_or_lists_those_that_ship(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", checkpoint, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    parameters = found["parameters"]
    assert parameters.pop("total") == sum(parameters.values())
    assert found["config"]["max_tokens"] == 16
    assert main(["info", "qdove-tiny"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["config"]["query"]["known"][:2] == ["a", "abalone"]
    assert main(["info"]) == 0
    listed = yaml.safe_load(capsys.readouterr().out)
    assert {name: Path(item["folder"]) for name, item in listed.items()} == shipped_checkpoints()


def test_a_large_photo_is_scaled_down_first(checkpoint: str, tmp_path: Path) -> None:
    Image.new("RGB", (120, 60), "green").save(tmp_path / "wide.png")
    flags = ["--model", checkpoint, "--tile", "--num-tokens", "4", "2", "--output", str(tmp_path / "x.png")]
    flags += ["--json", str(tmp_path / "x.json"), "--max-side", "24"]
    assert main(["reconstruct", str(tmp_path / "wide.png"), *flags]) == 0
    (result,) = json.loads((tmp_path / "x.json").read_text())
    assert result["scaled_to"] == [24, 12]


def test_the_cosine_transform_is_rebuilt_like_any_other_tokenizer(photos: Path, tmp_path: Path) -> None:
    numbers, flags = tmp_path / "x.json", ["--model", "cosines", "--output", str(tmp_path / "x.png")]
    asked = ["--num-tokens", "4", "auto", "budget 9", "--limit", "2", "--json", str(numbers)]
    assert main(["reconstruct", str(photos), *flags, *asked]) == 0
    lengths = [[row["length"] for row in result["rows"]] for result in json.loads(numbers.read_text())]
    assert [row[0] for row in lengths] == [4, 4]
    assert sum(row[2] for row in lengths) == 18
    assert main(["reconstruct", str(photos), *flags, "--tile", "--num-tokens", "budget 9", "--limit", "1"]) == 0


def test_a_model_of_one_length_is_rebuilt_at_that_length(photos: Path, tmp_path: Path) -> None:
    numbers, flags = (
        tmp_path / "x.json",
        ["--model", "titok-32-bench", "--limit", "1", "--output", str(tmp_path / "x.png")],
    )
    assert main(["reconstruct", str(photos), *flags, "--json", str(numbers)]) == 0
    assert [row["length"] for row in json.loads(numbers.read_text())[0]["rows"]] == [32]


def test_a_file_where_a_folder_should_be_is_named(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no folder")
    output = tmp_path / "notes.txt" / "x.png"
    flags = ["--model", checkpoint, "--num-tokens", "2", "--limit", "1", "--output", str(output)]
    assert main(["reconstruct", str(photos), *flags]) == 2
    assert "notes.txt is a file, not a folder; pass another path" in capsys.readouterr().err
