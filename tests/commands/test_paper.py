"""``dove paper``: the files are complete, their commands parse, and one really runs."""

import json
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import tyro
from PIL import Image

from dove.baselines.alit import ALIT
from dove.baselines.config import ALITS
from dove.cli import COMMANDS, main
from dove.commands.paper import RunOptions, filled_commands
from dove.errors import UserError
from dove.paper import load_experiment, load_experiments
from dove.paper.bench import load_rows
from dove.tokenizer import Dove

PAPER = [f"table{number}" for number in (2, 3, 4, 5, 6, 10)] + [
    f"figure{number}" for number in (1, 4, 5, 6, 7, 8, 9, 11)
]
PLANS = [(item.name, scale) for item in load_experiments() for scale in ("paper", "tiny")]


def parse(arguments: list[str]) -> object:
    """What the command itself would make of its arguments."""
    name = next(name for name in COMMANDS if arguments[: name.count(" ") + 1] == name.split())
    module, rest = import_module(COMMANDS[name].module), arguments[name.count(" ") + 1 :]
    if hasattr(module, "parse"):
        return module.parse(rest)
    return tyro.cli(get_type_hints(module.run)["options"], args=rest, config=(tyro.conf.FlagCreatePairsOff,))


def test_all_tables_and_figures_are_there_in_order() -> None:
    assert [item.name for item in load_experiments()] == PAPER


@pytest.mark.parametrize("name", PAPER)
def test_every_file_says_what_it_is(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.title
    assert experiment.paper_line
    assert set(experiment.scales) == {"paper", "tiny"}


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_commands_parse_with_the_options_of_today(name: str, scale: str, tmp_path: Path) -> None:
    plan = load_experiment(name).scales[scale]
    options = RunOptions(name=name, data=tmp_path, output=tmp_path / "out", squeezenet=tmp_path / "net.safetensors")
    commands = filled_commands(plan, options)
    assert commands
    for command in commands:
        assert all(isinstance(argument, str) and "{" not in argument for argument in command)
        parse(command)


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in PAPER)
    assert "not yet: the rows of ALIT" in shown
    assert all(load_experiment(name).paper_line in shown for name in PAPER)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_run_runs_a_table(tiny_dove: Dove, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    arguments = ["--scale", "tiny", "--data", photos, "--output", tmp_path / "out", "--model", tmp_path / "model"]
    arguments += ["--bench", tmp_path / "bench"]
    assert main(["paper", "run", "table2", *map(str, arguments)]) == 0
    rows = json.loads((tmp_path / "out" / "table2" / "reconstruction.json").read_text())["rows"]
    assert [row["num_tokens"] for row in rows] == [8, 16, "auto", "fixed@auto-mean"]
    shown = capsys.readouterr().out
    assert "dove: {32: 18.91, 64: 11.46, 96: 10.84" in shown  # Table 2's row, below ours
    assert f"not trained in {tmp_path / 'bench'}: DOVE, " in shown


def test_a_failing_command_ends_the_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", photos, "--output", tmp_path / "out", "--model", tmp_path / "nothing"]
    assert main(["paper", "run", "figure9", "--scale", "tiny", "--data", str(tmp_path / "none")]) == 2
    assert main(["paper", "run", "table2", *map(str, arguments)]) == 2
    assert "no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("table22", "did you mean table2"), ("9", "there are table2")])
def test_unknown_names_list_the_known(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_experiment(name)


def test_missing_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", "table2", "--scale", "paper"]) == 2
    assert "needs --data DIR with imagenet-train" in capsys.readouterr().err
    assert main(["paper", "run", "table2", "--scale", "paper", "--data", str(tmp_path)]) == 2
    assert "imagenet100-val" in capsys.readouterr().err


def test_dry_run_prints_training_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", "table2", "--scale", "paper", "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ dove")]
    assert lines[0].startswith("$ dove train --preset dove-base --data DATA/imagenet-train")
    assert "results/dove-base/model" in lines[1]


def test_every_training_of_the_bench_parses_to_equal_terms(tmp_path: Path) -> None:
    from dove.commands.train import parse as parse_training

    names = set()
    images: dict[str, int] = {}
    for row in load_rows():
        command = row.command(tmp_path, "images", tmp_path / "net.safetensors")
        assert all(flag.format(bench=tmp_path) in command for flag in row.flags)
        config = parse_training(command[1:])
        names.add(row.name)
        images[row.name] = config.run.steps * config.run.batch_size
        assert all(flag.split("/")[1] in names for flag in row.flags if flag.startswith("{bench}"))
    images.pop("alit-1-vqgan")  # on top
    assert images.pop("alit-2-codes") + images.pop("alit-3-pixels") == images["dove"]
    assert len(set(images.values())) == 1


def test_the_bench_has_equal_parameter_budgets() -> None:
    from dove.commands.train import parse as parse_training
    from dove.training.recipes import RECIPES

    counts = {}
    for row in load_rows():
        if row.label and row.name != "alit-3-pixels":
            config = parse_training(["--config", str(row.settings)])
            model = RECIPES[type(config)].start(config, None)
            counts[row.name] = sum(parameter.numel() for parameter in model.parameters())
    counts["alit"] = sum(parameter.numel() for parameter in ALIT(ALITS["alit-tiny"]).parameters())
    assert max(counts.values()) <= 1.1 * counts["dove"]
    assert min(counts.values()) >= 0.9 * counts["dove"]


def test_tables_take_the_models_that_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bench" / "titok-8" / "model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    flags = ["--data", str(tmp_path), "--bench", str(tmp_path / "bench"), "--dry-run"]
    assert main(["paper", "run", "table2", *flags]) == 0
    printed = capsys.readouterr().out
    assert f"--model dove-tiny TiTok-8={folder} --data" in printed
    assert "not trained" in printed
    assert "VQGAN-64" in printed.split("not trained")[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--only", "titok-9"], "there are dove, dove-gaussian"), (["--data", "x"], "--squeezenet")],
)
def test_the_bench_says_what_it_needs(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "train", "tiny", *flags]) == 2
    assert message in capsys.readouterr().err
