"""Checkpoints: whole, verified, few, and written beside the training."""

import hashlib
import json
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dove.errors import UserError
from dove.training import state
from dove.training.layout import Replicated
from dove.training.state import BackgroundWriter, checkpoints, load_state, save_state


def test_the_newest_are_kept_and_each_says_what_it_holds(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_state(tmp_path, step, {"step": step, "weights": torch.arange(3)}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000010"]
    assert load_state(checkpoints(tmp_path)[-1])["step"] == 10
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    manifest = json.loads((tmp_path / "step-00000010" / "manifest.json").read_text())
    assert manifest["step"] == 10
    assert len(manifest["sha256"]["state.pt"]) == 64


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {"weights": torch.arange(8)}, keep=1)
    file = tmp_path / "step-00000001" / "state.pt"
    whole = file.read_bytes()
    for position in range(0, len(whole), 37):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"state\.pt is damaged"):
            load_state(file.parent)
    file.write_bytes(whole)
    load_state(file.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ('{"format": 9, "sha256": {}}', "format 9"),
    ],
)
def test_manifests_that_do_not_do(text: str, message: str, tmp_path: Path) -> None:
    save_state(tmp_path, 1, {}, keep=1)
    (tmp_path / "step-00000001" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_state(tmp_path / "step-00000001")


def test_a_state_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {}, keep=1)
    folder, witness = tmp_path / "step-00000001", tmp_path / "witness"
    torch.save(_Touch(witness), folder / "state.pt")
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "sha256": {"state.pt": digest}}))
    with pytest.raises(UserError, match="damaged"):
        load_state(folder)
    assert not witness.exists()


class _Touch:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    scrap = tmp_path / ".step-00000007"
    scrap.mkdir()
    (scrap / "state.pt").write_bytes(b"half")
    assert checkpoints(tmp_path) == []
    save_state(tmp_path, 8, {}, keep=1)
    assert not scrap.exists()


def test_a_failing_rename_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, 1, {"step": 1}, keep=1)

    def failing(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.os, "replace", failing)
    with pytest.raises(UserError, match="No space left"):
        save_state(tmp_path, 2, {"step": 2}, keep=1)
    assert load_state(checkpoints(tmp_path)[-1]) == {"step": 1}


def test_copies_own_their_memory() -> None:
    average = AveragedModel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    module = average.module
    module[1].weight.requires_grad_(False)
    nested = {"weights": module.state_dict(), "rest": [torch.ones(1), (3, None)]}
    layout = Replicated(Mock(spec=Accelerator))
    layout.outline = module
    copies = layout.copies(average, nested)
    assert copies is not None
    twin, copy = copies
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.add_(1)
        nested["rest"][0].add_(1)
    assert all(torch.equal(copy["weights"][name], tensor) for name, tensor in twin.state_dict().items())
    assert not torch.equal(copy["weights"]["0.weight"], module[0].weight)
    assert copy["rest"][0].item() == 1
    assert copy["rest"][1] == (3, None)
    assert [parameter.requires_grad for parameter in twin.parameters()] == [True, True, False, True]


def test_the_writer_works_beside_and_tells_what_went_wrong() -> None:
    go, done = threading.Event(), []

    def slow() -> None:
        assert go.wait(10)
        done.append(threading.current_thread().name)

    def failing() -> None:
        raise UserError("no space")

    with BackgroundWriter() as writer:
        writer.begin(slow)
        writer.check()
        assert not done
        go.set()
        writer.begin(failing)  # waits for the first
        assert done[0].startswith("checkpoint")
        with pytest.raises(UserError, match="no space"):
            writer.wait()
        writer.wait()


def test_leaving_in_an_error_finishes_what_has_begun() -> None:
    done: list[int] = []

    def training() -> None:
        with BackgroundWriter() as writer:
            writer.begin(lambda: done.append(1))
            raise KeyError

    with pytest.raises(KeyError):
        training()
    assert done == [1]
