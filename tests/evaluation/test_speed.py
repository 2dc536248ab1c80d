"""Operations against sums made by hand, timings, and the command around them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import LlamaConfig

from dove.baselines.vqgan import VQGANTokenizer
from dove.cli import main
from dove.config import BackboneConfig
from dove.errors import UserError
from dove.evaluation import speed
from dove.evaluation.common import Subject
from dove.evaluation.operations import count_operations, on_meta, tokenizer_operations
from dove.evaluation.speed import language_model_operations, make_language_model
from dove.tokenizer import Dove
from dove.tokens import Tokens

CPU = torch.device("cpu")


def blocks(config: BackboneConfig, positions: int) -> int:
    """Multiply-adds of GPT-NeoX blocks: queries, keys, values and output; scores and their use; two layers of the MLP."""
    width = config.hidden_size
    layer = 4 * width**2 + 2 * positions * width + 2 * width * config.intermediate_size
    return config.num_layers * positions * layer


def convolutions(model: nn.Module, run: object, *inputs: torch.Tensor) -> int:
    """Multiply-adds of every convolution and linear layer that a call passes, from shapes alone."""
    counted = []

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        outputs = output[0].numel() // (output.shape[1] if isinstance(module, nn.Conv2d) else output.shape[-1])
        counted.append(outputs * module.weight.numel())

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        run(*inputs)  # type: ignore[operator]
    for handle in handles:
        handle.remove()
    return sum(counted)


@pytest.mark.parametrize("length", [1, 5, 16])
def test_encoding_counts_what_a_hand_counts(tiny_dove: Dove, images: torch.Tensor, length: int) -> None:
    config = tiny_dove.config
    ends = convolutions(tiny_dove.vqgan, tiny_dove.vqgan.encode, images[:1])
    width, channels = config.generator.hidden_size, config.vqgan.channels
    around = 16 * channels * width + length * width * (config.token_dim + 1)  # latents in; tokens and EOS out
    assert tokenizer_operations(tiny_dove, length)[0] == 2 * (ends + around + blocks(config.generator, 16 + length))


def test_decoding_counts_what_a_hand_counts_and_is_the_same_at_every_length(tiny_dove: Dove) -> None:
    config = tiny_dove.config
    width, channels = config.decoder.hidden_size, config.vqgan.channels
    ends = convolutions(tiny_dove.vqgan, tiny_dove.vqgan.decode, torch.zeros(1, 16, channels))
    around = 16 * width * (config.token_dim + channels)
    expected = 2 * (ends + around + blocks(config.decoder, 16))
    assert tokenizer_operations(tiny_dove, 3)[1] == tokenizer_operations(tiny_dove, 16)[1] == expected


def test_a_language_model_counts_what_a_hand_counts() -> None:
    width, inner, layers, words, positions = 32, 48, 3, 100, 7
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4
    )
    layer = 4 * width**2 + 2 * positions * width + 3 * width * inner
    expected = 2 * positions * (layers * layer + width * words)
    assert language_model_operations(make_language_model(config), positions) == expected


def test_counting_on_meta_is_counting_a_real_call(tiny_dove: Dove, images: torch.Tensor) -> None:
    assert tokenizer_operations(tiny_dove, 5)[0] == count_operations(lambda: tiny_dove.encode(images[:1], 5))
    tokens = tiny_dove.encode(images[:1], 5)
    assert tokenizer_operations(tiny_dove, 5)[1] == count_operations(lambda: tiny_dove.decode(tokens))
    ends = VQGANTokenizer(tiny_dove.vqgan)
    assert tokenizer_operations(ends, 16)[0] == count_operations(lambda: ends.encode(images[:1]))


def test_a_model_on_meta_leaves_the_model_alone(tiny_dove: Dove) -> None:
    shell = on_meta(tiny_dove)
    assert {tensor.device.type for tensor in shell.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in tiny_dove.state_dict().values()} == {"cpu"}


def test_other_tokenizers_are_really_run(tiny_dove: Dove, images: torch.Tensor) -> None:
    class Foreign(nn.Module):
        image_size, max_tokens = tiny_dove.image_size, tiny_dove.max_tokens
        token_counts = tiny_dove.token_counts

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_dove

        def encode(self, images, num_tokens="auto"):
            return self.inner.encode(images, num_tokens)

        def decode(self, tokens, num_tokens=None):
            return self.inner.decode(tokens, num_tokens)

    assert tokenizer_operations(Foreign(), 5) == tokenizer_operations(tiny_dove, 5)


@pytest.fixture(scope="module")
def paper_rows() -> list[dict[str, object]]:
    """Operations of the paper's sizes on the meta device."""
    subjects = speed.load_speed_subjects(["dove-base"], speed.META)
    entries = [entry for subject in subjects for entry in speed.make_entries(subject, [])]
    return speed.evaluate_speed(entries, [{}] * len(entries), language_model=make_language_model(), text_tokens=112)


def test_the_paper_s_column_is_multiply_adds_with_one_row_apart(paper_rows: list[dict[str, object]]) -> None:
    compared = {(row["model"], row["num_tokens"]): row for row in paper_rows}
    printed = {"dove-base": {32: 0.96, 64: 1.29, 128: 1.70, 256: 2.66}, "dove-base VQGAN": {256: 2.62}}
    for model, values in printed.items():
        for num_tokens, value in values.items():
            row = compared.pop((model, num_tokens))
            assert row["lm_flops"] == 2 * row["lm_multiply_adds"]
            assert row["weights"] == "random weights"
            assert (abs(row["lm_multiply_adds"] / 1e12 / value - 1) < 0.03) == (num_tokens != 32)
    assert not compared


def test_operations_grow_with_the_length(paper_rows: list[dict[str, object]]) -> None:
    rows = [row for row in paper_rows if row["model"] == "dove-base"]
    assert [row["num_tokens"] for row in rows] == [32, 64, 128, 256]
    for column in ("encode_flops", "lm_flops"):
        assert np.all(np.diff([row[column] for row in rows]) > 0)
    assert len({row["decode_flops"] for row in rows}) == 1


def test_columns_are_medians_of_the_repetitions() -> None:
    found = speed.speed_columns("encode", 6, np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    found |= speed.speed_columns("decode", 6, np.array([2.0] * 5))
    assert found == {
        "encode_images_per_second": 2,
        "encode_spread": pytest.approx(2 / 3),
        "decode_images_per_second": 3,
        "decode_spread": 0,
    }


def test_repetitions_take_models_and_lengths_in_turn(
    tiny_dove: Dove, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    decoded: list[Tokens] = []
    original, original_decode = Dove.encode, Dove.decode

    def watched(self: Dove, images: torch.Tensor, num_tokens: object = "auto") -> object:
        calls.append(str(num_tokens))
        return original(self, images, num_tokens)

    def watched_decode(self: Dove, tokens: Tokens, num_tokens: int | None = None) -> object:
        decoded.append(tokens)
        return original_decode(self, tokens, num_tokens)

    monkeypatch.setattr(Dove, "encode", watched)
    monkeypatch.setattr(Dove, "decode", watched_decode)
    entries = speed.make_entries(Subject("tiny", tiny_dove, CPU, "0"), ["2", "9", "auto"])
    rows = speed.time_entries(entries, {16: images}, 2)
    assert calls == ["2", "9", "auto"] * 3  # a warm-up and two repetitions
    assert len(decoded) == 9
    assert [row["mean_length"] for row in rows[:2]] == [2, 9]


def test_one_length_models_have_one_row(tiny_dove: Dove) -> None:
    ends = Subject("ends", VQGANTokenizer(tiny_dove.vqgan), CPU, "0")
    assert [entry.positions for entry in speed.make_entries(ends, ["2", "9"])] == [16]
    whole = Subject("tiny", tiny_dove, CPU, "0")
    assert [entry.positions for entry in speed.make_entries(whole, [])] == [2, 4, 8, 16]
    with pytest.raises(UserError, match="1 to 16 tokens an image; --num-tokens 17 asks for none of these"):
        speed.make_entries(whole, ["17"])


@pytest.fixture
def desk(tiny_dove: Dove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, three pictures, and a small language model for speed."""
    tiny_dove.save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    small = make_language_model(LlamaConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    monkeypatch.setattr("dove.evaluation.speed.make_language_model", lambda: small)
    return tmp_path


def evaluate(desk: Path, *flags: str) -> int:
    arguments = ["--model", desk / "model", "--output", desk / "out", "--batch-size", "2", "--repetitions", "2", *flags]
    return main(["evaluate", "speed", *map(str, arguments)])


def test_command_writes_rows_and_pictures(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(desk, "--data", str(desk / "photos"), "--num-tokens", "4", "auto") == 0
    report = json.loads((desk / "out" / "speed.json").read_text())
    whole = str(desk / "model")
    assert [(row["model"], row["num_tokens"]) for row in report["rows"]] == [
        (whole, 4),
        (whole, "auto"),
        (f"{whole} VQGAN", 16),
    ]
    for row in report["rows"]:
        assert row["weights"] == "checkpoint"
        assert min(row["encode_images_per_second"], row["decode_images_per_second"], row["decode_flops"]) > 0
        assert row["lm_flops"] > row["encode_flops"] > 0
        assert row["encode_speed_against_vqgan"] > 0
    assert report["rows"][2]["encode_speed_against_vqgan"] == 1
    assert report["batch_size"] == 2
    assert report["provenance"]["data"]["data"]["images"] == 2
    assert (desk / "out" / "speed.csv").read_text().startswith("model,weights,num_tokens,mean_length,encode_images")
    with Image.open(desk / "out" / "speed.png") as picture:
        assert picture.width > 900
    assert "T multiply-adds" in capsys.readouterr().out


def test_counting_runs_nothing(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "stopwatch", pytest.fail)
    assert evaluate(desk, "--count-only", "--num-tokens", "4", "16") == 0
    rows = json.loads((desk / "out" / "speed.json").read_text())["rows"]
    assert [row["encode_images_per_second"] for row in rows] == [None] * 3
    assert all(row["lm_multiply_adds"] > 0 for row in rows)


def test_presets_without_a_checkpoint_get_random_weights() -> None:
    assert speed.is_preset("dove-base")
    assert not speed.is_preset("dove-tiny")  # shipped
    subject, ends = speed.load_speed_subjects(["dove-14m"], speed.META)
    assert subject.weights == ends.weights == "random weights"
    assert ends.name == "dove-14m VQGAN"
    assert isinstance(subject.tokenizer, Dove)


def test_patches_in_the_place_of_a_vqgan_get_no_row_of_their_own() -> None:
    [subject] = speed.load_speed_subjects(["dove-tiny"], CPU)
    assert subject.name == "dove-tiny"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-tokens", "99"], "1 to 16 tokens an image; --num-tokens 99 asks for none of these"),
        (["--num-tokens", "auto"], "depends on the images; pass --data"),
        (["--repetitions", "0"], "at least 1"),
        (["--text-tokens", "-1"], "at least 0"),
        (["--limit", "0"], "--limit 0"),
        (["--model", "nowhere"], "nowhere"),
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--device", "tpu"], "not available"),
    ],
)
def test_bad_options_are_named(desk: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(desk, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("dove: ")
    assert error.count("\n") == 1


def test_counting_on_meta_works_with_a_cosine_prior(tiny_config) -> None:
    """Autocasting has no type on the device of tensors without data, and broke the count."""
    model = Dove(replace(tiny_config, prior="cosines", prior_numbers=48, token_dim=60)).eval()
    images = torch.zeros(1, 3, model.image_size, model.image_size)
    assert tokenizer_operations(model, 3)[0] == count_operations(lambda: model.generate(images, 3))
