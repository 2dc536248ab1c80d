"""The commands from end to end, on a model of a few steps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dove.cli import main
from dove.vlm.config import VLMTrainConfig
from dove.vlm.train import run_vlm_training


@pytest.fixture
def trained(training: VLMTrainConfig) -> str:
    return str(run_vlm_training(replace(training, run=replace(training.run, steps=2))))


def test_evaluate_writes_the_rows_of_table_3(trained: str, questions_file: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    named = f"small={trained}"
    arguments = ["--model", named, "--data", questions_file, "--num-tokens", "auto", "4", "full", "--limit", "9"]
    assert main(["vlm", "evaluate", *arguments, "--output", str(output), "--shown", "2"]) == 0
    report = json.loads((output / "vlm.json").read_text())
    assert [row["num_tokens"] for row in report["rows"]] == ["auto", 4, 16]
    assert [row["mean_length"] for row in report["rows"][1:]] == [4, 16]
    assert {row["model"] for row in report["rows"]} == {"small"} == set(report["provenance"]["models"])
    kinds = {"colour": "what color is it?", "yes or no": "is it red?"}
    assert set(report["rows"][0]) == {"model", "tokenizer", "num_tokens", "mean_length", "accuracy", "shape", *kinds}
    answers = json.loads((output / "answers.json").read_text())
    assert len(answers) == 9
    right = sum(record["said"]["4"].lower() == record["answers"][0] for record in answers)
    assert report["rows"][1]["accuracy"] == pytest.approx(right / 9)
    for kind, text in kinds.items():
        hits = [record["said"]["4"].lower() == record["answers"][0] for record in answers if record["question"] == text]
        assert report["rows"][1][kind] == pytest.approx(sum(hits) / len(hits))
    assert report["rows"][1]["shape"] is None
    with Image.open(output / "vlm.png") as picture:
        assert picture.width > picture.height


def test_ask_prints_an_answer_per_length(trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    picture = str(tmp_path / "photo.png")
    assert main(["vlm", "ask", picture, "is it red?", "--model", trained]) == 0
    capsys.readouterr()
    assert main(["vlm", "ask", picture, "is it red?", "--model", trained, "--num-tokens", "1", "auto"]) == 0
    printed = capsys.readouterr().out
    assert main(["vlm", "ask", picture, "is it red?", "--model", trained, "--num-tokens", "1", "auto", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [row["num_tokens"] for row in answers] == ["1", "auto"]
    assert "".join(f"{row['num_tokens']:>4}  {row['answer']}\n" for row in answers) == printed


def test_bad_input_is_one_line(trained: str, questions_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["ask", "no.png", "what?", "--model", trained], "no.png: no such file"),
        (["ask", "no.png", " ", "--model", trained], "the question is empty"),
        (["ask", "no.png", "what?", "--model", "dove-tiny"], "config"),
        (["evaluate", "--model", trained, "--data", questions_file, "--benchmark", "bleu"], "no benchmark 'bleu'"),
        (["evaluate", "--model", trained, "--data", questions_file, "--limit", "0"], "--limit 0"),
        (["train", "--preset", "vlm-huge"], "no preset 'vlm-huge'; the presets are vlm-tiny, llava"),
    ):
        assert main(["vlm", *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("dove: ")
        assert message in error


def test_info_says_what_it_is(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", trained, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["parameters"]) == {"connector", "language_model", "total"}
    assert found["config"]["num_tokens"] == "auto"
