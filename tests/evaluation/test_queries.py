"""What a query buys, measured on scenes of an untrained model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.cli import main
from dove.evaluation.queries import Scores, summarise_savings, tokens_for, tokens_needed, wrong_queries
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Photos in folders by name."""
    folder = tmp_path / "named"
    for number, name in enumerate(("red", "green", "blue", "grey", "pink")):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "one.png")
    return folder


def annotated(named: Path, folder: Path, queries: list[tuple[str, str, list[float]]]) -> str:
    """Make a table of the photos with queries: each the name of a photo, a text and a box."""
    entries = [{"image_id": f"{name}/one", "question": text, "bounding_box": [box]} for name, text, box in queries]
    (folder / "a.json").write_text(json.dumps(entries))
    table = str(folder / "a.parquet")
    annotations = ["--annotations", str(folder / "a.json"), "--images", str(named)]
    assert main(["data", "convert", "reference", *annotations, "--output", table]) == 0
    return table


def test_the_command_writes_rows_and_a_picture(tiny_qdove: QDove, named: Path, tmp_path: Path) -> None:
    tiny_qdove.save_pretrained(tmp_path / "model")
    output = tmp_path / "out"
    names = ("red", "green", "blue", "grey", "pink")
    corners = [(name, f"the {side} corner", [x, x, 4, 4]) for name in names for side, x in (("upper", 0), ("lower", 4))]
    table = annotated(named, tmp_path, corners)
    flags = ["--model", str(tmp_path / "model"), "--data", table, "--limit", "5", "--batch-size", "3"]
    more = ["--picture-tokens", "4", "--examples", "2", "--output", str(output)]
    assert main(["evaluate", "queries", *flags, *more]) == 0
    report = json.loads((output / "queries.json").read_text())
    assert [row["query"] for row in report["rows"]] == [kind for kind in ("query", "null", "wrong") for _ in range(13)]
    assert [row["num_tokens"] for row in report["rows"][:13]] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, "auto"]
    assert report["summary"][0]["scenes"] == 5
    assert report["summary"][0]["objects"] == report["rows"][0]["objects"] == 10
    with Image.open(output / "queries.png") as picture:
        assert picture.width > picture.height


def test_scenes_of_seen_and_unseen_cut_outs(tiny_qdove: QDove, named: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stamps"
    folder.mkdir()
    for number in range(40):
        Image.new("RGBA", (6, 9), (number * 6, 90, 200, 255)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"A thing{number}.")
    table = tmp_path / "stamps.parquet"
    assert main(["data", "convert", "stamps", "--images", str(folder), "--output", str(table)]) == 0
    tiny_qdove.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--data", str(named), "--stamps", str(table), "--limit", "3"]
    assert main(["evaluate", "queries", *flags, "--examples", "1", "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "queries.json").read_text())
    assert [row["data"] for row in report["summary"]] == ["seen", "unseen"]
    assert all(row["scenes"] == 3 and np.isfinite(row["inside_over_wrong"]) for row in report["summary"])
    assert (tmp_path / "out" / "queries-unseen.png").exists()


def test_images_without_a_region_to_measure_are_refused(
    tiny_qdove: QDove, named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_qdove.save_pretrained(tmp_path / "model")
    table = annotated(named, tmp_path, [("red", "what?", [1, 1, 0.01, 0.01])])
    flags = ["--model", str(tmp_path / "model"), "--data", table, "--output", str(tmp_path / "out")]
    assert main(["evaluate", "queries", *flags]) == 2
    assert "none of the 1 images has a query with a box of a pixel or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_photos_without_queries_are_refused_with_what_to_pass(
    tiny_qdove: QDove, named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_qdove.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--data", str(named), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "queries", *flags]) == 2
    assert (
        f"dove: {named / 'blue' / 'one.png'} has no queries; pass parquet that `dove data convert` wrote"
        in capsys.readouterr().err
    )


def test_the_wrong_query_is_an_absent_one_or_another_of_the_image() -> None:
    image_of, answered = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([True, False, True, True, True, True])
    assert wrong_queries(image_of, answered).tolist() == [1, 1, 4, 3, -1]


def test_tokens_for_a_quality_lie_between_the_lengths() -> None:
    curve = torch.tensor([10.0, 12, 14])
    assert tokens_for(curve, (1, 4, 16), 9.0) == 1
    assert tokens_for(curve, (1, 4, 16), 13.0) == pytest.approx(8)
    assert tokens_for(curve, (1, 4, 16), 15.0) == 16


def test_a_model_without_queries_is_refused(
    tiny_dove: Dove, named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--data", str(named), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "queries", *arguments]) == 2
    assert "takes no queries; pass the folder of a Q-DOVE" in capsys.readouterr().err


def test_savings_are_tokens_until_the_target() -> None:
    lengths = (1, 2, 4)
    query, null = torch.tensor([[20.0, 26, 30, 27], [25, 25, 25, 25]]), torch.tensor([[20.0, 21, 25, 26], [9, 9, 9, 9]])
    assert tokens_needed(query[:, :3], lengths, 25.0).tolist() == [2, 1]
    assert tokens_needed(null[:, :3], lengths, 25.0).tolist() == [4, 4]
    curves, auto = torch.stack([query, null, null]), torch.tensor([[3.0, 5.0]] * 3)
    found = summarise_savings("m", Scores(lengths, curves, curves, auto, null), 25.0)
    assert found["fewer"] == pytest.approx(1 - 1.5 / 4)
    assert found["auto_inside_query"] == pytest.approx(26)
    assert found["auto_tokens_null"] == 4


@pytest.mark.parametrize("flags", [["--limit", "0"], ["--examples", "-1"]])
def test_numbers_that_are_too_small_are_refused(
    flags: list[str], named: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "queries", "--model", "qdove-tiny", "--data", str(named), *flags]) == 2
    assert " ".join(flags) in capsys.readouterr().err
