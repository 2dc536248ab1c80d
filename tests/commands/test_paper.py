"""``dove paper``: the files are complete, their commands parse, and one really runs."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
from PIL import Image

from dove.cli import COMMANDS, main
from dove.errors import UserError
from dove.paper import REMARKS, Plan, load_experiment, load_experiments
from dove.paper.checks import check_data, overlap, refuse_training_images
from dove.paper.filling import RunOptions, needed_by, steps_of
from dove.paper.launch import command_line, spread
from dove.paper.models import Step, load_models, with_needs
from dove.paper.rehearsal import IMAGES, MOST, rehearsed, write_settings
from dove.paper.toy_data import IMAGES as TRAINING_IMAGES
from dove.paper.toy_data import draw_data
from dove.tokenizer import Dove

PAPER = [f"table{number}" for number in (2, 3, 4, 5, 6, 7, 10)] + [
    *(f"figure{number}" for number in (1, 4, 5, 6, 7, 8, 9, 10, 11)),
    "anchors",
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


def test_the_paper_s_tables_and_figures_are_all_accounted_for() -> None:
    numbered = {f"table{number}" for number in range(1, 11)} | {f"figure{number}" for number in range(1, 12)}
    assert numbered == {*PAPER, *REMARKS} - {"anchors"}


def steps_in(plan: Plan, folder: Path) -> list[Step]:
    places = {"data": folder, "output": folder / "out", "bench": folder / "bench"}
    return steps_of(plan, RunOptions(squeezenet=folder / "net.safetensors", **places))


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_commands_parse_with_the_options_of_today(name: str, scale: str, tmp_path: Path) -> None:
    steps = steps_in(load_experiment(name).scales[scale], tmp_path)
    assert steps
    for step in steps:
        assert all(isinstance(argument, str) and "{" not in argument for argument in step.arguments)
        parse(step.arguments)


def systems(paper: dict[str, Any]) -> list[str]:
    """Systems that the paper reports."""
    if "systems" in paper:
        return list(paper["systems"])
    if "rows" in paper:
        return [str(row[0]) for row in paper["rows"]]
    sets = [values for values in paper.get("values", {}).values() if isinstance(values, dict)]
    return [system for values in sets for system in values]


@pytest.mark.parametrize("name", PAPER)
def test_every_row_of_the_paper_has_its_plan_or_a_reason(name: str) -> None:
    experiment, models = load_experiment(name), load_models()
    plan = experiment.scales["paper"]
    measured = {row for model in plan.models or [plan.model] for row in models[model].rows}
    measured |= {"vqgan"} if name in ("table4", "figure8") else set()  # whoever measures a DOVE measures its VQGAN, too
    assert systems(experiment.paper)
    assert set(systems(experiment.paper)) <= measured | set(plan.not_yet)
    assert not measured & set(plan.not_yet)


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_nothing_is_measured_on_what_it_was_trained_on(name: str, scale: str, tmp_path: Path) -> None:
    steps = steps_in(load_experiment(name).scales[scale], tmp_path)
    refuse_training_images(steps)


def test_images_that_a_model_was_trained_on_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos" / "some").mkdir(parents=True)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(f"data: {tmp_path / 'photos'}\n")
    flags = ["--model", str(tmp_path / "run" / "model"), "--dry-run"]
    assert main(["paper", "run", "table2", "--data", str(tmp_path / "photos" / "some"), *flags]) == 2
    assert f"the model was trained on {tmp_path / 'photos'}" in capsys.readouterr().err
    assert main(["paper", "run", "table2", "--data", str(tmp_path / "run"), *flags]) == 0


def test_settings_beside_a_name_that_is_no_folder_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "config.yaml").write_text("data: photos\n")
    monkeypatch.chdir(tmp_path)
    refuse_training_images([Step(arguments=["evaluate", "probe", "--model", "dove-tiny", "--data", "photos"])])


def test_copies_of_training_images_are_found_by_their_content(photos: Path, tmp_path: Path) -> None:
    others, part = tmp_path / "others", tmp_path / "part"
    part.mkdir()
    shutil.copytree(photos, others)
    shutil.copy(photos / "2.png", part / "2.png")
    cells = [{"bytes": path.read_bytes(), "path": "renamed.png"} for path in sorted(photos.iterdir())]
    pq.write_table(pa.table({"image": cells}), tmp_path / "table.parquet")
    assert all(overlap(str(copy), str(photos)) for copy in (others, part, tmp_path / "table.parquet"))
    for path in others.iterdir():
        Image.new("RGB", (20, 20), "red").save(path)
    refuse_training_images([])  # which looks at files anew
    assert not overlap(str(others), str(photos))  # the same names alone say nothing


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in [*PAPER, *REMARKS])
    assert "not yet: alit, its roll-outs" in shown
    assert all(load_experiment(name).paper_line in shown for name in PAPER)
    assert main(["paper", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["finding"] for name, row in listed.items() if name in PAPER} == {
        name: load_experiment(name).paper_line for name in PAPER
    }
    assert any(part.startswith("alit, its roll-outs") for part in listed["table4"]["not_yet"])


def test_models_come_after_what_they_need(tmp_path: Path) -> None:
    names = list(load_models())
    assert all(names.index(need) < names.index(name) for name, model in load_models().items() for need in model.needs)
    assert [model.name for model in with_needs(["titok-vlm"], None)] == ["maskgit-vqgan", "titok-s128", "titok-vlm"]
    weights = tmp_path / "weights" / "titok-s128.safetensors"
    weights.parent.mkdir()
    weights.touch()
    assert [model.name for model in with_needs(["titok-vlm"], tmp_path)] == ["titok-s128", "titok-vlm"]
    (step,) = load_models()["titok-s128"].steps(tmp_path, tmp_path / "out")
    assert step.arguments[:4] == ["convert", str(weights), "--kind", "titok-s128"]
    parse(step.arguments)


@pytest.mark.parametrize(
    ("images", "processes", "expected"),
    [(48, 1, (1, 24, 2)), (48, 2, (2, 24, 1)), (48, 5, (4, 12, 1)), (48, 8, (8, 6, 1)), (8, 16, (8, 1, 1))],
)
def test_a_step_has_as_many_images_on_any_number_of_gpus(
    images: int, processes: int, expected: tuple[int, int, int]
) -> None:
    assert spread(images, processes) == expected
    step = Step(arguments=["train"], images=images)
    launcher = f"torchrun --standalone --nproc-per-node {expected[0]} -m dove" if expected[0] > 1 else "dove"
    flags = f"--run.batch-size {expected[1]} --run.accumulate {expected[2]}"
    assert command_line(step, processes) == f"{launcher} train {flags}"


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
    assert main(["paper", "run", "table2", *map(str, arguments)]) == 0
    rows = json.loads((tmp_path / "out" / "table2" / "reconstruction.json").read_text())["rows"]
    assert [row["num_tokens"] for row in rows] == [1, 8, 16, "auto", "fixed@auto-mean"]
    shown = capsys.readouterr().out
    assert "dove: {32: 18.91, 64: 11.46, 96: 10.84" in shown  # Table 2's row, below ours
    assert "not trained" not in shown


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
    assert "needs --data DIR with imagenet-train (training images of ImageNet-1K (1,281,167" in capsys.readouterr().err
    (tmp_path / "coco-val").mkdir()
    assert main(["paper", "run", "table2", "--scale", "paper", "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "lacks 3 of 4 things in --data" in told
    assert f"{tmp_path / 'imagenet100-val'}: validation images of ImageNet-100 (5,000 images)" in told


def test_dry_run_prints_training_first(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--scale", "paper", "--dry-run", "--processes", "2"]
    assert main(["paper", "run", "table2", *flags]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("$ ")]
    launched = "$ torchrun --standalone --nproc-per-node 2 -m dove train --preset dove-base --data DATA/imagenet-train"
    assert lines[0].startswith(launched)
    assert lines[0].endswith("--run.batch-size 24 --run.accumulate 1")
    assert all("dove evaluate reconstruction --model DOVE=results/dove-base/model" in line for line in lines[-3:])
    assert "TiTok-L-32: its published weights would be taken from weights/titok-l32.safetensors" in shown
    assert "ChannelTok (its Table 1)'s values" in shown


def test_a_model_of_the_user_s_is_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--scale", "paper", "--dry-run", "--model", "Mine=runs/mine", "Other=runs/other"]
    assert main(["paper", "run", "figure9", *flags]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    assert len(lines) == 2
    assert "--model Mine=runs/mine Other=runs/other " in lines[0]
    assert "--model runs/mine " in lines[1]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rehearsal's folder with data and settings, without weights."""
    folder = tmp_path_factory.mktemp("rehearsal")
    draw_data(folder / "data", [name for item in load_experiments() for name in item.scales["paper"].data])
    write_settings(folder, [step for item in load_experiments() for step in steps_in(item.scales["paper"], folder)])
    return folder


def test_rehearsals_have_data_and_commands_of_every_plan(drawn: Path) -> None:
    plans = {name: load_experiment(name).scales["paper"] for name in PAPER}
    for name, plan in plans.items():
        check_data(name, needed_by(plan, RunOptions(data=drawn / "data")), drawn / "data")
    steps = {str(step): step for plan in plans.values() for step in steps_in(plan, drawn)}
    for step in steps.values():
        for part in rehearsed(step, drawn):
            options = parse(part.arguments)
            if step.images:
                assert part.images == IMAGES
                assert 0 < options.run.epochs < 0.1
            elif hasattr(options, "limit"):
                assert options.limit <= MOST


def test_a_rehearsal_s_models_are_narrow_and_as_deep(drawn: Path) -> None:
    (step,) = load_models()["qdove-base"].steps(drawn / "data", drawn)[-1:]
    whole, narrow = parse(step.arguments), parse(rehearsed(step, drawn)[0].arguments)
    assert [width // 8 for width in whole.model.vqgan.block_out_channels] == [*narrow.model.vqgan.block_out_channels]
    assert narrow.model.token_dim == narrow.model.generator.hidden_size == 64
    assert narrow.model.generator.num_layers == whole.model.generator.num_layers
    assert narrow.model.max_tokens == whole.model.max_tokens
    assert narrow.pretrained_words == narrow.model.query.tokenizer == str(drawn / "pretrained" / "pythia")
    assert (narrow.loss.perceptual_network, whole.loss.perceptual_network) == ("squeezenet", "lpips")


def test_drawn_annotations_fit_their_images(drawn: Path, tmp_path: Path) -> None:
    for step in load_models()["qdove-base"].steps(drawn / "data", tmp_path)[:-1]:
        assert main(step.arguments) == 0
    tables = [pq.read_table(tmp_path / "queries" / f"{name}.parquet") for name in ("regions", "questions", "relations")]
    assert [len(table) for table in tables] == [TRAINING_IMAGES - 2, TRAINING_IMAGES - 2, TRAINING_IMAGES]


def test_a_rehearsal_takes_nothing_of_the_user_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", "table2", "--rehearse"]) == 2
    assert main(["paper", "run", "table2", "--rehearse", "--scale", "paper", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("--rehearse is for --scale paper") == 2
    flags = ["--scale", "paper", "--rehearse", "--dry-run", "--output", str(tmp_path)]
    assert main(["paper", "run", *flags]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("$ ")]
    assert len({*lines}) == len(lines)  # what several plans need is made once
    assert sum("torchrun --standalone --nproc-per-node 2" in line for line in lines) == sum(
        line.startswith(("$ dove train", "$ dove vlm train")) for line in lines
    )
    assert "not rehearsed: FID, LPIPS and DreamSim" in shown
    assert not [*tmp_path.iterdir()]


def test_what_measures_nothing_says_what_it_is() -> None:
    with pytest.raises(UserError, match="table8 measures nothing; it is settings"):
        load_experiment("table8")


def test_tables_take_the_models_that_are_trained_or_ship(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bench" / "titok-8" / "model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    flags = ["--data", str(tmp_path), "--bench", str(tmp_path / "bench"), "--dry-run"]
    assert main(["paper", "run", "table2", *flags]) == 0
    printed = capsys.readouterr().out
    shipped = "dove-tiny VQGAN-64=vqgan-bench DOVE=dove-bench DOVE+=dove-plus-bench"
    assert f"--model {shipped} TiTok-8={folder} TiTok-32=titok-32-bench ALIT=alit-bench --data" in printed
    assert "not trained" in printed
    assert "DOVE-Gaussian" in printed.split("not trained")[1]
