"""Variables of a launcher that did not launch."""

from pathlib import Path

import pytest
from PIL import Image

from dove.cli import main
from dove.errors import UserError
from dove.training.processes import check_devices, check_launcher, loader_processes

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "2950"}


def test_all_or_none_is_a_launch() -> None:
    check_launcher({})
    check_launcher({"MASTER_ADDR": "localhost", "MASTER_PORT": "2950"})
    check_launcher(LAUNCHED)


@pytest.mark.parametrize("left_over", [["RANK"], ["WORLD_SIZE"], ["LOCAL_RANK"], ["RANK", "WORLD_SIZE", "LOCAL_RANK"]])
def test_what_is_left_over_is_named_with_the_way_out(left_over: list[str]) -> None:
    with pytest.raises(UserError, match=f"has {', '.join(left_over)} and not .*MASTER_ADDR.*env -u {left_over[0]}"):
        check_launcher({name: LAUNCHED[name] for name in left_over})


@pytest.mark.parametrize("wrong", [{"RANK": "2"}, {"RANK": "x"}, {"WORLD_SIZE": ""}, {"LOCAL_RANK": "-1"}])
def test_what_is_no_rank_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="no rank of a process"):
        check_launcher(LAUNCHED | wrong)


def test_every_process_needs_a_gpu_of_its_own() -> None:
    check_devices(0, LAUNCHED)
    check_devices(2, LAUNCHED)
    check_devices(1, {})
    with pytest.raises(UserError, match=r"fewer GPUs \(1\) than .* \(2\); start with --nproc-per-node 1"):
        check_devices(1, LAUNCHED | {"LOCAL_WORLD_SIZE": "2"})


def test_loader_processes_come_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(24)))
    assert loader_processes(None, gpu=False) == 0
    assert loader_processes(None, gpu=True, environment={}) == 8
    assert loader_processes(None, gpu=True, environment={"LOCAL_WORLD_SIZE": "4"}) == 6
    assert [loader_processes(asked, gpu=gpu) for asked in (0, 3) for gpu in (True, False)] == [0, 0, 3, 3]


@pytest.mark.parametrize("command", [["train", "--preset", "dove-tiny"], ["vlm", "train", "--preset", "vlm-tiny"]])
def test_trainings_say_it_in_a_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setenv("RANK", "0")
    assert main([*command, "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("dove: the environment has RANK and not WORLD_SIZE")
    assert not (tmp_path / "out").exists()


def test_a_start_from_one_picture_is_refused_with_the_number_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    flags = ["--data", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--run.holdout", "0"]
    assert main(["train", "--preset", "dove-tiny", *flags]) == 2
    assert (
        "1 images are too few to fit a cosine prior to; pass at least 256, take a trained one "
        "with --start checkpoint --checkpoint dove-tiny, or train without: --model.prior none --model.prior-numbers 0"
        in capsys.readouterr().err
    )
