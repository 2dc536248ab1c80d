"""Learning rate by step, and steps from epochs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.training import setup
from dove.training.config import DoveLossConfig, OptimConfig, RunConfig
from dove.training.presets import PRESETS
from dove.training.schedule import in_steps, learning_rate
from dove.training.trainer import moving_average


def test_warm_up_peak_and_end() -> None:
    config = OptimConfig(lr=1.0, final_lr=0.1, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[0] == 0.1
    assert rates[9] == 1.0
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert abs(rates[60] - 0.55) < 1e-9
    assert abs(rates[110] - 0.1) < 1e-9


def test_the_rate_stays_until_its_decay() -> None:
    config = OptimConfig(lr=1.0, final_lr=0.1, warmup_steps=10, decay_share=0.2)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert set(rates[10:81]) == {1.0}
    assert rates[81] < 1.0
    assert rates[90] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    # A longer run is the same up to where the shorter one decays.
    assert [learning_rate(config, step, 1000) for step in range(81)] == rates[:81]


def test_without_decay_the_rate_stays() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=0, decay_share=0.0)
    assert {learning_rate(config, step, 50) for step in range(50)} == {1.0}


@given(
    images=st.integers(1, 10_000),
    epochs=st.floats(0.01, 50),
    batch=st.integers(1, 64),
    accumulate=st.integers(1, 4),
    processes=st.integers(1, 8),
)
def test_epochs_are_the_fewest_steps_that_show_them(
    images: int, epochs: float, batch: int, accumulate: int, processes: int
) -> None:
    run = RunConfig(steps=0, epochs=epochs, batch_size=batch, accumulate=accumulate)
    resolved = in_steps(replace(PRESETS["dove-base"], run=run), images, processes).run
    assert resolved.epochs == 0
    shown = resolved.steps * batch * accumulate * processes
    assert shown >= epochs * images > shown - batch * accumulate * processes


def test_the_paper_s_training_of_dove(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = PRESETS["dove-base"]
    assert in_steps(config, 1_281_167 - config.run.holdout, 2).run.steps == 533_713
    two = SimpleNamespace(num_processes=2, is_main_process=True)
    monkeypatch.setattr(setup, "PartialState", lambda **_given: two)
    assert setup.resolve_length(config, 1_280_911).run.steps == 533_713
    told = capsys.readouterr().out
    assert "= " not in told
    assert "20 epochs of 1,280,911 images are 533,713 steps of 48 images" in told


def test_a_run_in_steps_stays_as_it_is() -> None:
    assert in_steps(PRESETS["dove-tiny"], 10, 1) is PRESETS["dove-tiny"]


@pytest.mark.parametrize(
    "run", [{"steps": 5, "epochs": 1.0}, {"steps": 0}, {"steps": -1}, {"epochs": -1.0, "steps": 5}]
)
def test_exactly_one_way_of_saying_how_long(run: dict[str, float]) -> None:
    with pytest.raises(UserError, match="exactly one"):
        RunConfig(**run)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["log_every", "sample_every", "checkpoint_every"])
def test_intervals_are_of_at_least_a_step(name: str) -> None:
    with pytest.raises(UserError, match=f"run.{name}=0 must be at least 1"):
        RunConfig(**{name: 0})


def test_shares_are_shares() -> None:
    with pytest.raises(UserError, match="decay_share=1.5"):
        OptimConfig(decay_share=1.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": float("nan")}, "optim.lr=nan must be a number of at least 0"),
        ({"weight_decay": -1.0}, "optim.weight_decay=-1.0 must"),
        ({"betas": (0.9, 1.0)}, r"optim.betas=\(0.9, 1.0\) must be at least 0 and below 1"),
        ({"ema_decay": float("nan")}, "optim.ema_decay=nan must"),
        ({"clip_norm": 0.0}, "optim.clip_norm=0 lets no gradient through"),
    ],
)
def test_settings_that_no_optimizer_takes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimConfig(**settings)
    with pytest.raises(UserError, match="eos_delay=0.7 and loss.eos_ramp=0.5"):
        DoveLossConfig(eos_delay=0.7, eos_ramp=0.5)


def test_the_moving_average_soon_forgets_the_first_weights() -> None:
    update = moving_average(0.999)
    average, current = [torch.tensor([1.0])], [torch.tensor([0.0])]
    for count in range(1, 100):
        update(average, current, torch.tensor(count))
    assert average[0].item() < 1e-4  # 0.999 alone would leave 0.9 of it
    late = [torch.tensor([1.0])]
    update(late, current, torch.tensor(100_000))
    assert late[0].item() == pytest.approx(0.999)
