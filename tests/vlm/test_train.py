"""Training: what it writes, that it learns, resumes exactly, and splits over processes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dove.vlm.train
from dove.commands.vlm.train import parse
from dove.config import config_from_dict
from dove.errors import UserError
from dove.vlm.config import VLM_PRESETS, LoraConfig, VLMTrainConfig
from dove.vlm.model import VisionLanguageModel
from dove.vlm.train import AnswerTrainer, build_model, make_optimizer, run_vlm_training


def weights(output: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(output) / "model" / "model.safetensors")


def losses(output: str | Path) -> list[float]:
    lines = map(json.loads, Path(output, "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_it_learns_and_what_it_writes_loads(training: VLMTrainConfig) -> None:
    config = replace(training, optim=replace(training.optim, lr=1e-2), connector_lr=1e-2)
    config = replace(config, run=replace(config.run, steps=30, sample_every=30))
    folder = run_vlm_training(config)
    found = losses(config.output)
    assert sum(found[-5:]) < 0.6 * sum(found[:5])
    last = json.loads(Path(config.output, "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["accuracy/auto"] <= 1
    model = VisionLanguageModel.from_pretrained(folder, device="cpu")
    assert model.config.num_tokens == "auto"
    written = Path(config.output) / "config.yaml"
    assert parse(["--config", str(written)]) == config


def test_resuming_equals_never_stopping_bit_for_bit(
    training: VLMTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_vlm_training(training)
    cut = replace(training, output=str(tmp_path / "cut"))
    original = AnswerTrainer._step

    def dying(self: AnswerTrainer, batch: object, step: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return original(self, batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(AnswerTrainer, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            run_vlm_training(cut)
    # What the connector standardises by lies in the checkpoint: no image is encoded for it again.
    monkeypatch.setattr(dove.vlm.train, "sample_tokens", None)
    run_vlm_training(cut)
    whole, resumed = weights(training.output), weights(cut.output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    "sharding", [pytest.param("none", marks=pytest.mark.nightly), pytest.param("fsdp", marks=pytest.mark.faults)]
)
def test_two_processes_train_like_one_with_twice_the_batch(
    sharding: str, training: VLMTrainConfig, tmp_path: Path
) -> None:
    # One policy: each process draws its batch's own.
    one = replace(training, num_tokens=("5",), run=replace(training.run, steps=3, batch_size=8))
    run_vlm_training(one)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dove"]
    arguments = ["vlm", "train", "--config", str(Path(one.output) / "config.yaml"), "--output", str(tmp_path / "two")]
    arguments += ["--run.batch-size", "4", "--run.sharding", sharding]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = weights(one.output), weights(tmp_path / "two")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=name)


def test_pixels_and_cached_tokens_give_the_same(training: VLMTrainConfig, tmp_path: Path) -> None:
    plain = replace(training, num_tokens=("auto", "5"), views=replace(training.views, count=1))
    plain = replace(plain, run=replace(plain.run, steps=2))
    run_vlm_training(plain)
    loaded = replace(plain, cache_tokens=False, output=str(tmp_path / "pixels"))
    run_vlm_training(loaded)
    # The cache holds tokens in half precision.
    assert losses(plain.output) == pytest.approx(losses(loaded.output), abs=2e-3)


def test_a_blind_model_needs_no_image(training: VLMTrainConfig) -> None:
    config = replace(training, tokenizer="none", views=replace(training.views, count=1))
    folder = run_vlm_training(replace(config, run=replace(config.run, steps=2)))
    model = VisionLanguageModel.from_pretrained(folder, device="cpu")
    assert isinstance(model.ask("no/such/picture.png", "is it red?"), str)


def test_two_learning_rates_and_decay_of_matrices_alone(training: VLMTrainConfig) -> None:
    model = build_model(replace(training, tokenizer="none"), None, ["is it red?"])
    model.connector.requires_grad_(True)
    groups = make_optimizer(training, model).param_groups
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (2e-3 if name.startswith("connector.") else 1e-3)
        assert decays[id(parameter)] == (0.01 if parameter.ndim > 1 else 0)


def test_the_preset_of_table_8() -> None:
    llava = VLM_PRESETS["llava"]
    assert (llava.optim.lr, llava.connector_lr, llava.optim.final_lr) == (2e-5, 2e-4, 0)
    assert (llava.optim.betas, llava.optim.weight_decay, llava.optim.clip_norm) == ((0.9, 0.999), 0.01, 1.0)
    assert (llava.run.batch_size, llava.optim.warmup_steps, llava.run.steps) == (8, 250, 5000)
    assert llava.language_model == "lmsys/vicuna-7b-v1.5"


def test_adapters_alone_are_trained_and_stored(training: VLMTrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = build_model(replace(training, tokenizer="none"), None, ["is it red?"])
    base.language_model.save_pretrained(tmp_path / "lm")
    base.text_tokenizer.save_pretrained(tmp_path / "lm")
    config = replace(training, language_model=str(tmp_path / "lm"), lora=LoraConfig(rank=2))
    folder = run_vlm_training(replace(config, run=replace(config.run, steps=2)))
    names = set(weights(config.output))
    assert all(name.startswith("connector.") or "lora_" in name for name in names)
    assert any("lora_" in name for name in names)
    VisionLanguageModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_tokens": ()}, "names no length policy"), ({"lora": LoraConfig(rank=4)}, "pass --language-model")],
)
def test_settings_that_contradict_each_other(change: dict[str, object], message: str, training: VLMTrainConfig) -> None:
    with pytest.raises(UserError, match=message):
        replace(training, **change)


@pytest.mark.parametrize("name", ["prompt", "query", "on_missing"])
def test_settings_of_a_few_values(name: str, training: VLMTrainConfig) -> None:
    with pytest.raises(UserError, match=f"setting {name} is 'shout'; it must be .*'(plain|null|refuse)'"):
        config_from_dict(asdict(training) | {name: "shout"}, VLMTrainConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ""}, "no conversations are given"),
        ({"output": ""}, "needs --output"),
        ({"num_tokens": ("99",)}, "num_tokens=99"),
        ({"language_model": "./nowhere"}, "cannot load the language model './nowhere'"),
        ({"tokenizer": "./nowhere"}, "no checkpoint './nowhere'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], message: str, training: VLMTrainConfig) -> None:
    with pytest.raises(UserError, match=message):
        run_vlm_training(replace(training, **change))


def test_a_question_longer_than_the_context_is_named(training: VLMTrainConfig) -> None:
    config = replace(training, scratch=replace(training.scratch, max_positions=12))
    with pytest.raises(UserError, match=r"drawings.parquet row \d+: .* the language model has 12"):
        run_vlm_training(config)
