"""``dove paper evaluate bench``: what is asked of each row, and that answers are kept while the question stays the same."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro

from dove.cli import COMMANDS, main
from dove.errors import UserError
from dove.paper.bench import load_rows
from dove.paper.bench_curves import plot_curves, read_curves
from dove.paper.bench_reports import EvaluateOptions, list_evaluations, measure_bench


def train(bench: Path, *names: str, weights: bytes = b"1") -> None:
    for row in load_rows(names):
        row.model(bench).mkdir(parents=True, exist_ok=True)
        (row.model(bench) / "model.safetensors").write_bytes(weights)
        (row.model(bench) / "config.json").write_text("{}")


def reports_of(bench: Path, limit: int = 600) -> EvaluateOptions:
    return EvaluateOptions(
        bench=bench, data=("val",), limit=limit, probe_train=("one",), probe_data=("two",), probe_limit=5
    )


class Fake:
    """Stands for ``dove``: writes a report, or fails where it is told to."""

    def __init__(self, failing: str = "nothing"):
        self.failing, self.ran = failing, []

    def __call__(self, arguments: list[str]) -> int:
        folder = Path(arguments[arguments.index("--output") + 1])
        if self.failing in str(folder):
            return 1
        self.ran.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"model": "DOVE", "num_tokens": "auto", "mean_length": 12.34}]
        (folder / f"{arguments[1]}.json").write_text(json.dumps({"rows": rows, "provenance": {}}))
        return 0


def test_commands_of_all_rows_parse(tmp_path: Path) -> None:
    train(tmp_path)
    reports = reports_of(tmp_path)
    evaluations = list(list_evaluations(reports))
    assert {item.name.split("/")[0] for item in evaluations} == {row.name for row in load_rows() if row.label} | {
        "speed"
    }
    for evaluation in evaluations:
        name, rest = " ".join(evaluation.arguments[:2]), evaluation.command(reports)[2:]
        options = get_type_hints(import_module(COMMANDS[name].module).run)["options"]
        asked = tyro.cli(options, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
        assert getattr(asked, "train_limit", 5) == 5


def test_reports_are_kept_until_model_or_question_changes(tmp_path: Path) -> None:
    train(tmp_path, "flat-colour", "dove", "dove-plus")
    assert measure_bench(reports_of(tmp_path), Fake(failing="dove/probe")) == 1
    again = Fake()
    assert measure_bench(reports_of(tmp_path), again) == 0
    assert again.ran == ["probe"]
    train(tmp_path, "dove", weights=b"2")
    changed = Fake()
    assert measure_bench(reports_of(tmp_path), changed) == 0
    assert changed.ran == ["reconstruction", "lengths", "probe", "speed"]
    more = Fake()
    assert measure_bench(reports_of(tmp_path, limit=601), more) == 0
    assert more.ran.count("reconstruction") == 3
    assert "probe" not in more.ran


def test_predicted_quality_is_given_the_mean_length_of_the_paper_s_rule(tmp_path: Path) -> None:
    train(tmp_path, "dove", "dove-plus")
    reports = reports_of(tmp_path)
    assert "dove-plus/length-rule" not in [item.name for item in list_evaluations(reports)]
    measure_bench(reports, Fake())
    asked = {item.name: item.arguments for item in list_evaluations(reports)}["dove-plus/length-rule"]
    assert "budget 12.3" in asked


def test_curves_are_those_at_the_greatest_length(tmp_path: Path) -> None:
    (tmp_path / "dove").mkdir()
    lines = ['{"step": 500, "psnr/1": 9.0, "psnr/64": 15.5, "psnr/auto": 12.0}', '{"step": 520, "mse": 1.0}', '{"st']
    (tmp_path / "dove" / "metrics.jsonl").write_text("\n".join(lines))
    curves = read_curves(load_rows(), tmp_path)
    assert curves == {"DOVE": [(16000, 15.5)]}
    assert plot_curves(curves, 12.0).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "needs --data"),
        (["--data", "x"], "nothing is trained in"),
        (["--data", "x", "--probe-data", "y"], "need both --probe-train and --probe-data"),
        (["--data", "x", "--only", "titok-9"], "there are flat-colour"),
    ],
)
def test_it_says_what_it_needs(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "evaluate", "bench", "--bench", str(tmp_path), *flags]) == 2
    assert message in capsys.readouterr().err


def test_too_few_images_are_refused_in_front_of_all_evaluations() -> None:
    with pytest.raises(UserError, match="--limit 100 is too few for Frechet distances; pass at least 513"):
        EvaluateOptions(data=("val",), limit=100)


def test_speeds_are_measured_of_all_rows_together_or_not_at_all(tmp_path: Path) -> None:
    train(tmp_path)
    names = [item.name for item in list_evaluations(replace(reports_of(tmp_path), only=("dove",)))]
    assert names == ["dove/reconstruction", "dove/lengths", "dove/probe"]
