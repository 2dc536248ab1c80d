"""What shows a training's curves; wandb and trackio by stand-ins that note what they are told."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (its import warns about protobuf once)

from dove.errors import UserError
from dove.training.log import TrainingLog

IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Calls of a wandb and a trackio that do nothing."""
    calls: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        return lambda *arguments, **named: calls.append((name, arguments or named))

    for package in ("wandb", "trackio"):
        stand_in = SimpleNamespace(log=note("log"), finish=note("finish"), Image=lambda pixels: pixels)

        def init(stand_in: SimpleNamespace = stand_in, **named: Any) -> SimpleNamespace:
            calls.append(("init", named))
            return stand_in

        stand_in.init = init
        monkeypatch.setitem(sys.modules, package, stand_in)
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_numbers_and_pictures_reach_the_tracker(name: str, told: list[tuple[str, Any]], tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, start=0, tracker=name)
    log.numbers(5, {"loss": 0.5})
    log.pictures(5, IMAGES, {"4": IMAGES})
    log.tracker.close()
    (start, settings), (_, numbers), (_, pictures), (end, _) = told
    assert (start, end) == ("init", "finish")
    assert settings["name"] == tmp_path.name
    assert name == "trackio" or settings["mode"] == "offline"
    assert numbers[0] == {"loss": 0.5}
    assert pictures[0]["samples"].dtype.name == "uint8"
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 5, "loss": 0.5}


def test_tensorboard_writes_events_and_none_writes_none(tmp_path: Path) -> None:
    for name in ("tensorboard", "none"):
        (tmp_path / name).mkdir()
        log = TrainingLog(tmp_path / name, start=0, tracker=name)
        log.numbers(1, {"loss": 1.0})
        log.pictures(1, IMAGES, {})
        log.tracker.close()
        assert (tmp_path / name / "samples" / "step-00000001.png").is_file()
    assert list((tmp_path / "tensorboard" / "tensorboard").iterdir())
    assert not (tmp_path / "none" / "tensorboard").exists()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        TrainingLog(tmp_path, start=0, tracker="wandb")
