import json
import pickle
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dove.cli import main
from dove.commands.convert import ConvertOptions, describe, run
from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.integrations.convert import convert, make_layers, paper_config
from dove.tokenizer import Dove
from dove.weight_files import read_published


def rename(model: Dove, *replacements: tuple[str, str]) -> dict[str, Tensor]:
    """The state dict with the beginnings of its names replaced, the first that fits."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        old, new = next(((old, new) for old, new in replacements if name.startswith(old)), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor.clone()
    return renamed


FOREIGN = (
    ("generator.transformer.", "tokenizer.encoder_lm.gpt_neox."),
    ("generator.eos_head.projection.", "tokenizer.encoder_lm.embed_out."),
    ("generator.latent_projection.", "tokenizer.encoder_in."),
    ("generator.token_projection.", "tokenizer.encoder_out."),
    ("generator.grid_positions", "tokenizer.encoder_pos"),
    ("token_decoder.transformer.", "tokenizer.decoder_lm."),
    ("token_decoder.token_projection.", "tokenizer.decoder_in."),
    ("token_decoder.latent_projection.", "tokenizer.decoder_out."),
    ("token_decoder.positions", "tokenizer.decoder_pos"),
    ("vqgan.", "tokenizer.vq."),
)
NAMELESS = (  # as FOREIGN, but no word tells the sides
    ("generator.transformer.", "first."),
    ("generator.eos_head.projection.", "stop."),
    ("generator.latent_projection.", "a."),
    ("generator.token_projection.", "b."),
    ("generator.grid_positions", "p"),
    ("token_decoder.transformer.", "second."),
    ("token_decoder.token_projection.", "c."),
    ("token_decoder.latent_projection.", "d."),
    ("token_decoder.positions", "q"),
    ("vqgan.", "vq."),
)


@pytest.fixture
def model(tiny_dove: Dove) -> Dove:
    """A tokenizer in which no two tensors are alike."""
    for parameter in tiny_dove.parameters():
        parameter.data += torch.randn_like(parameter) * 0.01
    return tiny_dove


def assert_same(converted: Dove, model: Dove, apart_from: tuple[str, ...] = ()) -> None:
    for name, tensor in model.state_dict().items():
        if name not in apart_from:
            assert torch.equal(converted.state_dict()[name], tensor), name


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("names", [(), FOREIGN], ids=["own names", "foreign names"])
def test_renamed_tokenizers_come_back(model, tmp_path, wrapper, names):
    renamed = {wrapper + name: tensor for name, tensor in rename(model, *names).items()}
    torch.save({"model": renamed, "epoch": 3, "args": {"lr": 1e-4}}, tmp_path / "dove.pth")
    conversion = convert(read_published(tmp_path / "dove.pth"), model.config)
    assert_same(conversion.model, model)
    assert conversion.layout.reason == "the prefixes say so"
    assert conversion.zeroed == conversion.unused == ()


def test_prefixes_rule_over_order(model):
    renamed = dict(reversed(rename(model, *FOREIGN).items()))
    assert_same(convert(renamed, model.config).model, model)


def test_without_words_the_first_is_the_generator(model):
    mapping = {"generator.grid_positions": "p", "token_decoder.positions": "q"}
    conversion = convert(rename(model, *NAMELESS), model.config, mapping)
    assert conversion.layout.reason == "it comes first in the file"
    assert conversion.matched["generator.token_projection"] == "b"
    assert_same(conversion.model, model)


def test_the_generator_can_be_named(model):
    swapped = [(old, {"first.": "second.", "second.": "first."}.get(new, new)) for old, new in NAMELESS]
    mapping = {"generator.grid_positions": "p", "token_decoder.positions": "q"}
    assert_same(convert(rename(model, *swapped), model.config, mapping, generator="second.").model, model)
    with pytest.raises(
        UserError, match="--generator 'third.' is no transformer of the file; pass 'second.' or 'first.'"
    ):
        convert(rename(model, *swapped), model.config, mapping, generator="third.")


def test_what_fits_twice_is_refused(model):
    with pytest.raises(UserError, match=r"2 layers .* fit generator.grid_positions \(p, q\); pass --map generator.gri"):
        convert(rename(model, *NAMELESS), model.config)


def test_half_precision_and_foreign_shapes(model):
    renamed = rename(model, *FOREIGN)
    renamed["tokenizer.encoder_pos"] = renamed["tokenizer.encoder_pos"][None]
    renamed["tokenizer.encoder_in.weight"] = renamed["tokenizer.encoder_in.weight"][..., None, None]
    conversion = convert({name: tensor.bfloat16() for name, tensor in renamed.items()}, model.config)
    for name, tensor in conversion.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float()), name


def test_the_vocabulary_head(tiny_config):
    model = Dove(replace(tiny_config, eos_head="vocab"))
    conversion = convert(rename(model, *FOREIGN), model.config)
    assert_same(conversion.model, model)
    assert conversion.matched["generator.eos_head.projection"] == "tokenizer.encoder_lm.embed_out"


def test_what_is_left_is_listed_in_both_directions(model):
    renamed = rename(model, *FOREIGN)
    lost = ("generator.grid_positions", "token_decoder.positions", "token_decoder.token_projection.bias")
    for name in ("encoder_pos", "decoder_pos", "decoder_in.bias"):
        del renamed[f"tokenizer.{name}"]
    renamed |= {
        "discriminator.conv.weight": torch.zeros(4, 3, 4, 4),
        "tokenizer.encoder_lm.gpt_neox.embed_in.weight": torch.zeros(40, 32),
        "tokenizer.encoder_lm.gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    }
    conversion = convert(renamed, model.config)
    assert_same(conversion.model, model, apart_from=lost)
    assert sorted(conversion.zeroed) == sorted(lost)
    assert all((conversion.model.state_dict()[name] == 0).all() for name in lost)
    assert conversion.unused == ("discriminator.conv.weight",)
    report = describe(conversion)
    for line in (
        "set to zero, which changes nothing: 3",
        "not used: 1",
        "  discriminator.conv.weight",
        "'tokenizer.vq.'",
    ):
        assert line in report


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x: {k: v for k, v in x.items() if "decoder_lm" not in k},
            "1 GPT-NeoX stacks instead of 2 .*encoder_lm",
        ),
        (lambda x: {**x, **{f"ema.{k}": v for k, v in x.items()}}, "4 GPT-NeoX stacks instead of 2 .*ema.*--prefix"),
        (lambda x: {k: v for k, v in x.items() if ".vq." not in k}, "0 diffusers VQModels instead of 1"),
        (
            lambda x: {k: v for k, v in x.items() if "encoder_in" not in k},
            "fits generator.latent_projection .32, 8.; pass",
        ),
        (
            lambda x: {**x, "tokenizer.encoder_new.weight": torch.zeros(24, 32)},
            r"fit generator.token_projection \(.*new",
        ),
        (lambda x: {k: v for k, v in x.items() if "final_layer" not in k}, "4 missing: generator.transformer.final_la"),
        (
            lambda x: {k: v[:1] if "vq.quant_conv.b" in k else v for k, v in x.items()},
            r"vq.quant_conv.bias \(1,\) for \(8",
        ),
    ],
    ids=["one transformer", "two copies", "no VQGAN", "a layer missing", "a layer too many", "incomplete", "size"],
)
def test_what_is_not_there_or_not_clear_is_named(model, spoil, message):
    with pytest.raises(UserError, match=message):
        convert(spoil(rename(model, *FOREIGN)), model.config)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"generator.nothing": "p"}, "--map generator.nothing: no such layer; there are generator.grid_positions"),
        ({"generator.token_projection": "nowhere"}, "--map to 'nowhere': no such layer in the file; it has p"),
        ({"generator.token_projection": "a"}, r"--map generator.token_projection=a does not fit: it is \[32, 8\]"),
    ],
)
def test_mappings_are_checked(model, mapping, message):
    with pytest.raises(UserError, match=message):
        convert(rename(model, *NAMELESS), model.config, mapping)


def test_a_copy_is_chosen_by_its_prefix(model, tmp_path):
    other = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    torch.save({"model": other, "ema": rename(model, *FOREIGN)}, tmp_path / "dove.pth")
    assert_same(convert(read_published(tmp_path / "dove.pth", "ema."), model.config).model, model)
    with pytest.raises(UserError, match="no tensor under the prefix 'best.'; its names start with ema, model"):
        read_published(tmp_path / "dove.pth", "best.")


def test_without_a_config_sizes_are_the_paper_s(model):
    tensors = {"stop.embed_out.weight": torch.zeros(300, 8)}
    found = paper_config(tensors, make_layers(tensors), "0..1")
    assert found == DoveConfig(vqgan=VQGANConfig(pixel_range="0..1"), eos_head="vocab", vocab_size=300)
    assert paper_config({}, [], "-1..1") == DoveConfig()
    with torch.device("meta"), pytest.raises(UserError, match="other sizes than configured: .*; pass --config"):
        convert(rename(model, *FOREIGN))


class Surprise:
    """What a pickle must not bring along."""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"model": Surprise()}, path), "holds more than tensors .*Surprise"),
        (lambda path: path.write_bytes(b""), "is damaged or no PyTorch file"),
        (lambda path: path.write_bytes(b"\x80\x02garbage"), "is damaged or no PyTorch file"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "is damaged or no PyTorch file"),
        (lambda path: None, "cannot read .*: No such file or directory"),
        (lambda path: path.mkdir(), "cannot read .*: Is a directory"),
    ],
)
def test_files_that_are_not_loaded(tmp_path, write, message):
    write(tmp_path / "dove.pth")
    with pytest.raises(UserError, match=message):
        read_published(tmp_path / "dove.pth")


def test_the_command_writes_a_checkpoint(model, tmp_path: Path, capsys, images):
    torch.save(rename(model, *NAMELESS), tmp_path / "dove.pth")
    (tmp_path / "config.json").write_text(json.dumps(asdict(model.config)))
    run(
        ConvertOptions(
            file=tmp_path / "dove.pth",
            output=tmp_path / "out",
            config=tmp_path / "config.json",
            map=("generator.grid_positions=p", "token_decoder.positions=q"),
        )
    )
    assert "token generator  under 'first.': it comes first in the file" in capsys.readouterr().out
    again = Dove.from_pretrained(tmp_path / "out")
    assert torch.equal(again.decode(again.encode(images)), model.decode(model.encode(images)))


@pytest.mark.parametrize("entry", ["word", "=x", "x="])
def test_the_command_checks_its_mappings(tmp_path, entry):
    with pytest.raises(UserError, match=r"--map .* is not understood; pass OUR_NAME=NAME_IN_THE_FILE"):
        run(ConvertOptions(file=tmp_path / "x.pth", output=tmp_path / "out", map=(entry,)))


def test_a_newer_pickle_of_something_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": print}, protocol=4))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert main(["convert", str(tmp_path / "x.pth"), "--output", str(tmp_path / "out")]) == 2
    assert not seen
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
