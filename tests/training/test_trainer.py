"""The loop: what it writes, that it resumes exactly, and that two processes are one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dove.commands.train import parse
from dove.errors import UserError
from dove.processor import ImageProcessor
from dove.tokenizer import Dove
from dove.training.config import DoveTrainConfig, OptimConfig, PrefixTrainConfig, VQGANTrainConfig
from dove.training.objectives import DoveObjective, Step, StepResult
from dove.training.setup import run_training
from dove.training.state import checkpoints, load_state
from dove.training.trainer import Trainer, load_moments, make_adamw, select_precision


def weights(output: str | Path) -> dict[str, torch.Tensor]:
    return load_state(checkpoints(Path(output) / "checkpoints")[-1])["model"]


def test_a_run_leaves_a_model_settings_metrics_and_pictures(tiny_training: DoveTrainConfig) -> None:
    model_folder = run_training(tiny_training)
    output = Path(tiny_training.output)
    images = torch.zeros(2, 3, 16, 16)
    assert Dove.from_pretrained(model_folder).encode(images, "auto").lengths.shape == (2,)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rec" in line] == [1, 2, 3, 4, 5, 6]
    assert {"psnr/1", "psnr/4", "psnr/16", "psnr/auto"} <= {name for line in lines for name in line}
    assert sorted(path.name for path in (output / "samples").iterdir()) == ["step-00000003.png", "step-00000006.png"]
    assert [path.name for path in checkpoints(output / "checkpoints")] == ["step-00000004", "step-00000006"]
    assert list((output / "tensorboard").iterdir())


def test_the_written_config_reloads_to_equal_settings(tiny_training: DoveTrainConfig) -> None:
    run_training(replace(tiny_training, run=replace(tiny_training.run, steps=1)))
    file = Path(tiny_training.output) / "config.yaml"
    assert parse(["--config", str(file)]) == replace(tiny_training, run=replace(tiny_training.run, steps=1))
    assert yaml.safe_load(file.read_text())["preset"] == "dove-tiny-paper"


class Killed(Exception):
    pass


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer._step

    def dying(self: Trainer, batches: list[torch.Tensor], at: int) -> object:
        if at == step:
            raise Killed
        return original(self, batches, at)

    monkeypatch.setattr(Trainer, "_step", dying)


@pytest.mark.parametrize("gan", [0.0, 0.1])
def test_resuming_equals_never_stopping_bit_for_bit(
    gan: float, tiny_training: DoveTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discriminator = replace(tiny_training.loss.discriminator, width=8, layers=1)
    config = replace(tiny_training, loss=replace(tiny_training.loss, gan=gan, discriminator=discriminator))
    run_training(config)
    cut = replace(config, output=str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(Killed):
            run_training(cut)
    run_training(cut)
    whole, resumed = weights(config.output), weights(cut.output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in Path(cut.output, "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_random_prefixes_resume_exactly_too(
    prefix_training: PrefixTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(prefix_training)
    cut = replace(prefix_training, output=str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(Killed):
            run_training(cut)
    run_training(cut)
    whole, resumed = weights(prefix_training.output), weights(cut.output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_resume_never_refuses_a_used_folder(tiny_training: DoveTrainConfig) -> None:
    short = replace(tiny_training, run=replace(tiny_training.run, steps=2))
    run_training(short)
    settings = Path(short.output, "config.yaml").read_text()
    with pytest.raises(UserError, match="resume auto"):
        run_training(replace(short, resume="never"))
    assert Path(short.output, "config.yaml").read_text() == settings


def test_a_checkpoint_of_other_losses_is_refused(tiny_training: DoveTrainConfig) -> None:
    short = replace(tiny_training, run=replace(tiny_training.run, steps=1))
    run_training(short)
    discriminator = replace(short.loss.discriminator, width=8, layers=1)
    with pytest.raises(UserError, match=r"step-00000001 belongs to a model or to losses with other settings, those in"):
        run_training(replace(short, loss=replace(short.loss, gan=0.1, discriminator=discriminator)))


def test_a_resumed_optimizer_has_the_settings_of_its_run() -> None:
    def optimizer(**settings: float | tuple[float, float]) -> torch.optim.AdamW:
        weight = torch.nn.Parameter(torch.ones(2, 2))
        weight.grad = torch.ones(2, 2)
        return make_adamw(replace(OptimConfig(), **settings), [weight], lr=1e-3)

    before, after = optimizer(betas=(0.9, 0.99)), optimizer(betas=(0.5, 0.9), weight_decay=0.5)
    before.step()
    load_moments(after, before.state_dict())
    assert [group["betas"] for group in after.param_groups] == [(0.5, 0.9)] * 2
    assert after.param_groups[0]["weight_decay"] == 0.5
    (state,) = after.state.values()
    assert torch.allclose(state["exp_avg"], torch.full((2, 2), 0.1))


def test_another_number_of_images_a_step_is_refused(tiny_training: DoveTrainConfig) -> None:
    run = replace(tiny_training.run, steps=2)
    run_training(replace(tiny_training, run=run))
    with pytest.raises(UserError, match="with 4 images a step, and this run has 6 .*run.batch_size 3"):
        run_training(replace(tiny_training, run=replace(run, steps=4, batch_size=3, accumulate=2)))
    run_training(replace(tiny_training, run=replace(run, steps=4, batch_size=2, accumulate=2)))


def test_a_run_in_epochs_takes_their_steps(tiny_training: DoveTrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    # 24 pictures, of which 4 are held out: two epochs of 20 at 4 a step.
    config = replace(tiny_training, run=replace(tiny_training.run, steps=0, epochs=2.0))
    run_training(config)
    assert checkpoints(Path(config.output) / "checkpoints")[-1].name == "step-00000010"
    assert "2 epochs of 20 images are 10 steps of 4 images" in capsys.readouterr().out
    assert parse(["--config", str(Path(config.output) / "config.yaml")]) == config


def test_too_little_memory_names_what_helps(tiny_training: DoveTrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Trainer, batches: object, step: int) -> StepResult:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "_step", full)
    with pytest.raises(UserError, match="4 images at a time;.*--run.batch-size 2 --run.accumulate 2"):
        run_training(tiny_training)


@pytest.mark.parametrize(
    ("precision", "instructions", "taken"),
    [
        ("auto", {"avx2": True}, "no"),
        ("auto", {"avx512_bf16": True}, "bf16"),
        ("bf16", {}, "bf16"),
        ("fp32", {"amx_bf16": True}, "no"),
    ],
)
def test_bf16_is_taken_where_the_cpu_has_instructions_for_it(
    precision: str, instructions: dict[str, bool], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert select_precision(precision) == taken


def spoil(steps: set[int], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of some steps undefined, or only its gradient."""
    original = DoveObjective.forward

    def failing(self: DoveObjective, images: torch.Tensor, step: Step) -> StepResult:
        result = original(self, images, step)
        if step.number not in steps:
            return result
        weight = self.model.generator.latent_projection.weight
        spoilt = result.loss * float("nan") if what == "loss" else result.loss + (weight - weight).abs().sqrt().sum()
        return replace(result, loss=spoilt)

    monkeypatch.setattr(DoveObjective, "forward", failing)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_with_whole_checkpoints(
    what: str, tiny_training: DoveTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil({3}, what, monkeypatch)
    with pytest.raises(UserError, match=f"the {what} is nan at step 3 .*rank-0.json"):
        run_training(tiny_training)
    assert all(tensor.isfinite().all() for tensor in weights(tiny_training.output).values())


def test_the_batch_at_fault_is_named(tiny_training: DoveTrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, torch.Tensor] = {}
    original = Trainer._step

    def watching(self: Trainer, batches: list[torch.Tensor], at: int) -> object:
        seen[at] = batches[0]
        return original(self, batches, at)

    monkeypatch.setattr(Trainer, "_step", watching)
    spoil({2}, "loss", monkeypatch)
    plain = replace(
        tiny_training,
        augment=replace(tiny_training.augment, crop_probability=0.0, grayscale_probability=0.0, flip=False),
    )
    with pytest.raises(UserError):
        run_training(plain)
    file = Path(plain.output) / "non-finite" / "step-00000002-rank-0.json"
    named = json.loads(file.read_text())["batch"]
    processor = ImageProcessor(16)
    pixels = torch.cat([processor(Path(plain.data) / record["key"]) for record in named])
    assert torch.equal(pixels, seen[2])


def test_skipping_leaves_out_the_update_and_counts(
    tiny_training: DoveTrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(
        tiny_training, run=replace(tiny_training.run, non_finite="skip", keep_checkpoints=9, checkpoint_every=1)
    )
    spoil({3, 4}, "gradient", monkeypatch)
    run_training(config)
    states = [load_state(folder) for folder in checkpoints(Path(config.output) / "checkpoints")]
    unmoved = [
        all(torch.equal(old["model"][name], new["model"][name]) for name in old["model"])
        for old, new in pairwise(states)
    ]
    assert unmoved == [False, False, True, True, False]  # between steps 1 and 2, 2 and 3, ...
    assert "2 updates were left out" in capsys.readouterr().out
    lines = [json.loads(line) for line in (Path(config.output) / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped") for line in lines if "rec" in line] == [None, None, None, 1, 2, 2]
    assert len(list((Path(config.output) / "non-finite").iterdir())) == 2


def test_batches_of_a_step_are_one_large_batch(tiny_training: DoveTrainConfig, tmp_path: Path) -> None:
    whole = replace(tiny_training, run=replace(tiny_training.run, batch_size=8))
    halves = replace(tiny_training, output=str(tmp_path / "halves"), run=replace(tiny_training.run, accumulate=2))
    run_training(whole)
    run_training(halves)
    expected, found = weights(whole.output), weights(halves.output)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=name)
    state = load_state(checkpoints(Path(halves.output) / "checkpoints")[-1])
    assert len(state["objective"]["threshold"]["means"]) == tiny_training.run.steps


def test_a_full_disk_keeps_the_last_checkpoint(tiny_training: DoveTrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(replace(tiny_training, run=replace(tiny_training.run, steps=2)))

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        run_training(tiny_training)
    monkeypatch.undo()
    assert load_state(checkpoints(Path(tiny_training.output) / "checkpoints")[-1])["step"] == 2


@pytest.mark.parametrize("keep", [1000, None])
def test_a_damaged_checkpoint_is_named(keep: int | None, tiny_training: DoveTrainConfig) -> None:
    run_training(replace(tiny_training, run=replace(tiny_training.run, steps=2)))
    file = checkpoints(Path(tiny_training.output) / "checkpoints")[-1] / "state.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # a single bit, in the middle of some weights
    file.write_bytes(content[:keep])
    with pytest.raises(UserError, match=r"step-00000002/state.pt is damaged \(its sha256"):
        run_training(tiny_training)


def test_the_vqgan_stage_feeds_the_whole_tokenizer(
    vqgan_training: VQGANTrainConfig, tiny_training: DoveTrainConfig
) -> None:
    stage = run_training(vqgan_training)
    config = replace(tiny_training, vqgan_checkpoint=str(stage), run=replace(tiny_training.run, steps=1))
    run_training(replace(config, optim=replace(config.optim, lr=0.0)))
    trained = load_file(stage / "model.safetensors")
    assert Path(stage, "config.json").is_file()
    ours = weights(config.output)
    assert torch.equal(ours["vqgan.encoder.conv_in.weight"], trained["encoder.conv_in.weight"])
    other = replace(vqgan_training.model, latent_channels=4)
    with pytest.raises(UserError, match="other sizes"):
        run_training(replace(config, model=replace(config.model, vqgan=other), output=config.output + "2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"data": ""}, "needs --data"), ({"data": "./nowhere"}, "nowhere"), ({"holdout": 24}, "run.holdout")],
)
def test_bad_settings_are_named(change: dict[str, object], message: str, tiny_training: DoveTrainConfig) -> None:
    config = tiny_training
    if "holdout" in change:
        config = replace(config, run=replace(config.run, holdout=24))
    else:
        config = replace(config, **change)
    with pytest.raises(UserError, match=message):
        run_training(config)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_two_processes_train_like_one_with_twice_the_batch(
    accumulate: int, tiny_training: DoveTrainConfig, tmp_path: Path
) -> None:
    one = replace(tiny_training, run=replace(tiny_training.run, steps=3, batch_size=8, sample_every=9))
    run_training(one)
    output = tmp_path / "two"
    config = Path(one.output) / "config.yaml"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dove"]
    arguments = ["train", "--config", str(config), "--output", str(output), "--run.batch-size", str(4 // accumulate)]
    arguments += ["--run.accumulate", str(accumulate)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = weights(one.output), weights(output)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=name)
    states = [load_state(checkpoints(Path(folder) / "checkpoints")[-1]) for folder in (one.output, output)]
    means = [state["objective"]["threshold"]["means"] for state in states]
    assert means[0] == pytest.approx(means[1], rel=1e-4)
