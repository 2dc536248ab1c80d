"""Every preset parses, and so do files of settings."""

from pathlib import Path

import pytest

from dove.commands.train import parse
from dove.errors import UserError
from dove.training.presets import PRESETS, RECIPES, load_presets


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_parse_to_themselves(preset: str) -> None:
    assert parse(["--preset", preset]) == PRESETS[preset]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine: {recipe: dove, optim: {lrr: 0.1}}", "unknown mine.optim.lrr"),
        ("mine: {recipe: dove, optim: {lr: 1e-3}}", "mine.optim.lr is '1e-3'; it must be float"),
    ],
)
def test_mistakes_in_presets_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_presets(str(file), RECIPES)


def test_the_last_value_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: dove-tiny\noptim: {lr: 0.5}\nrun:\n  steps: 7\n  seed: 3\n")
    config = parse(["--config", str(file), "--run.seed", "4", "--run.seed", "5"])
    assert (config.optim.lr, config.run.steps, config.run.seed) == (0.5, 7, 5)


@pytest.mark.parametrize(
    ("flags", "steps", "epochs"),
    [
        ([], 0, 20.0),
        (["--run.steps", "50"], 50, 0.0),
        (["--run.steps=50"], 50, 0.0),
        (["--run.steps", "50", "--run.seed", "1"], 50, 0.0),
        (["--config", "FILE"], 7, 0.0),
        (["--config", "FILE", "--run.epochs", "3"], 0, 3.0),
    ],
)
def test_the_last_way_of_saying_how_long_a_run_is_wins(
    flags: list[str], steps: int, epochs: float, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("run: {steps: 7}\n")
    run = parse(
        ["--preset", "dove-base", *(str(tmp_path / "mine.yaml") if flag == "FILE" else flag for flag in flags)]
    ).run
    assert (run.steps, run.epochs) == (steps, epochs)


def test_both_ways_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="exactly one"):
        parse(["--preset", "dove-tiny", "--run.steps", "50", "--run.epochs", "2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("run: [", "not YAML"), ("just words", "settings by name"), ("preset: dove-huge", "dove-huge")],
)
def test_bad_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        parse(["--config", str(file)])


def test_a_missing_preset_lists_them_all() -> None:
    with pytest.raises(UserError, match="dove-base.*dove-tiny"):
        parse([])


def test_a_misspelt_flag_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no flag --optim\.lrr; did you mean --optim\.lr\?"):
        parse(["--preset", "dove-tiny", "--optim.lrr", "1"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run.threads", "0"], "run.threads=0"),
        (["--run.seed", "-1"], "run.seed=-1"),
        (["--optim.warmup-steps", "-5"], "optim.warmup_steps=-5"),
        (["--model.generator.num-heads", "3"], "num_heads=3 must divide hidden_size=128"),
        (["--model.generator.rotary-fraction", "2"], "rotary_fraction=2"),
        (["--model.eos-head", "vocab", "--model.vocab-size", "0"], "eos_token_id=0"),
        (["--loss.perceptual", "-1"], "loss.perceptual=-1.0 must be a finite number of at least 0"),
        (["--loss.eos", "nan"], "loss.eos=nan must be a finite number"),
    ],
)
def test_settings_that_no_model_or_run_can_have_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(["--preset", "dove-bench", *flags])


def test_weights_of_an_alignment_are_finite_and_not_negative() -> None:
    for weight in ("-1", "nan", "inf"):
        with pytest.raises(
            UserError, match=rf"loss.align.weight={float(weight)} must be a finite number of at least 0"
        ):
            parse(["--preset", "dove-tiny", "--loss.align.weight", weight])
