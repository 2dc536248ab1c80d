import json
import pickle
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dove.cli import main
from dove.commands.convert import ConvertOptions, run
from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.integrations.convert import convert, paper_config
from dove.tokenizer import Dove
from dove.weight_files import read_published


def rename(model: Dove, *replacements: tuple[str, str]) -> dict[str, Tensor]:
    """The state dict with the beginnings of its names replaced, the first that fits."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        old, new = next(((old, new) for old, new in replacements if name.startswith(old)), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor.clone()
    return renamed


BEGINNINGS = {
    "generator.transformer.": "tokenizer.encoder_lm.gpt_neox.",
    "generator.eos_head.projection.": "tokenizer.encoder_lm.embed_out.",
    "generator.latent_projection.": "tokenizer.encoder_in.",
    "generator.token_projection.": "tokenizer.encoder_out.",
    "generator.grid_positions": "tokenizer.encoder_pos",
    "token_decoder.": "tokenizer.decoder_",
    "token_decoder.transformer.": "tokenizer.decoder_lm.",
    "vqgan.": "tokenizer.vq.",
}
FOREIGN = tuple(sorted(BEGINNINGS.items(), reverse=True))  # the longer of two that fit stands first


@pytest.fixture
def model(tiny_dove: Dove) -> Dove:
    """A tokenizer in which no two tensors are alike."""
    for parameter in tiny_dove.parameters():
        parameter.data += torch.randn_like(parameter) * 0.01
    return tiny_dove


def run_command(tensors: dict[str, Tensor], config: DoveConfig, folder: Path) -> None:
    torch.save(tensors, folder / "dove.pth")
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    run(
        ConvertOptions(
            file=folder / "dove.pth",
            output=folder / "out",
            config=folder / "config.json",
            map=tuple(f"{ours}={theirs}" for ours, theirs in BEGINNINGS.items()),
        )
    )


def assert_same(converted: Dove, model: Dove, apart_from: tuple[str, ...] = ()) -> None:
    for name, tensor in model.state_dict().items():
        if name not in apart_from:
            assert torch.equal(converted.state_dict()[name], tensor), name


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("beginnings", [{}, BEGINNINGS], ids=["own names", "foreign names"])
def test_renamed_tokenizers_come_back(model, tmp_path, wrapper, beginnings):
    names = FOREIGN if beginnings else ()
    renamed = {wrapper + name: tensor for name, tensor in rename(model, *names).items()}
    torch.save({"model": renamed, "epoch": 3, "args": {"lr": 1e-4}}, tmp_path / "dove.pth")
    conversion = convert(read_published(tmp_path / "dove.pth", "model."), model.config, beginnings)
    assert_same(conversion.model, model)
    assert conversion.zeroed == conversion.unused == ()


def test_half_precision_and_foreign_shapes(model):
    renamed = rename(model, *FOREIGN)
    renamed["tokenizer.encoder_pos"] = renamed["tokenizer.encoder_pos"][None]
    renamed["tokenizer.encoder_in.weight"] = renamed["tokenizer.encoder_in.weight"][..., None, None]
    conversion = convert({name: tensor.bfloat16() for name, tensor in renamed.items()}, model.config, BEGINNINGS)
    for name, tensor in conversion.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float()), name


def test_the_vocabulary_head(tiny_config):
    model = Dove(replace(tiny_config, eos_head="vocab"))
    assert_same(convert(rename(model, *FOREIGN), model.config, BEGINNINGS).model, model)


def test_what_is_left_is_listed_in_both_directions(model, tmp_path, capsys):
    renamed = rename(model, *FOREIGN)
    lost = ("generator.grid_positions", "token_decoder.positions", "token_decoder.token_projection.bias")
    for name in ("encoder_pos", "decoder_positions", "decoder_token_projection.bias"):
        del renamed[f"tokenizer.{name}"]
    renamed |= {
        "discriminator.conv.weight": torch.zeros(4, 3, 4, 4),
        "tokenizer.encoder_lm.gpt_neox.embed_in.weight": torch.zeros(40, 32),
        "tokenizer.encoder_lm.gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    }
    conversion = convert(renamed, model.config, BEGINNINGS)
    assert_same(conversion.model, model, apart_from=lost)
    assert sorted(conversion.zeroed) == sorted(lost)
    assert all((conversion.model.state_dict()[name] == 0).all() for name in lost)
    assert conversion.unused == ("discriminator.conv.weight",)
    run_command(renamed, model.config, tmp_path)
    report = capsys.readouterr().out
    for line in ("set to zero, which changes nothing: 3", "not used: 1", "  discriminator.conv.weight"):
        assert line in report


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x: {k: v for k, v in x.items() if "decoder_lm" not in k},
            r"26 weights are not .*: token_decoder.transformer.layers\.\*; token_decoder.transformer.final_layer_norm.weight "
            r"\(32,\);.* Not used of it: nothing",
        ),
        (
            lambda x: {k.replace("encoder_in", "encoder_entry"): v for k, v in x.items()},
            r"1 weights are not in the published file: generator.latent_projection.weight \(32, 8\)\. "
            r"Not used of it: tokenizer.encoder_entry.bias \(32,\); tokenizer.encoder_entry.weight \(32, 8\)\. Pass --p",
        ),
        (
            lambda x: {k: v[:1] if "vq.quant_conv.b" in k else v for k, v in x.items()},
            r"tokenizer.vq.quant_conv.bias of the published file is \(1,\), vqgan.quant_conv.bias is \(8,\)",
        ),
    ],
    ids=["one transformer", "a layer of another name", "size"],
)
def test_what_is_not_there_is_named_with_both_sides(model, spoil, message):
    with pytest.raises(UserError, match=message):
        convert(spoil(rename(model, *FOREIGN)), model.config, BEGINNINGS)


def test_a_beginning_that_is_none_of_ours_is_refused(model):
    with pytest.raises(
        UserError, match="--map generator.nothing: no weight of the tokenizer begins so; it has vqgan.enc"
    ):
        convert(rename(model), model.config, {"generator.nothing": "p"})


def test_a_copy_is_chosen_by_its_prefix(model, tmp_path):
    other = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    torch.save({"model": other, "ema": rename(model, *FOREIGN)}, tmp_path / "dove.pth")
    assert_same(convert(read_published(tmp_path / "dove.pth", "ema."), model.config, BEGINNINGS).model, model)
    with pytest.raises(UserError, match="no tensor under the prefix 'best.'; its names start with ema, model"):
        read_published(tmp_path / "dove.pth", "best.")


def test_without_a_config_sizes_are_the_paper_s(model):
    tensors = {"tokenizer.encoder_lm.embed_out.weight": torch.zeros(300, 8)}
    found = paper_config(tensors, BEGINNINGS, "0..1")
    assert found == DoveConfig(vqgan=VQGANConfig(pixel_range="0..1"), eos_head="vocab", vocab_size=300)
    assert paper_config({}, {}, "-1..1") == DoveConfig()
    with torch.device("meta"), pytest.raises(UserError, match="weights are not in .*: vqgan.encoder.down_blocks"):
        convert(rename(model, *FOREIGN), beginnings=BEGINNINGS)


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


def test_the_command_writes_a_checkpoint(model, tmp_path: Path, images):
    run_command(rename(model, *FOREIGN), model.config, tmp_path)
    again = Dove.from_pretrained(tmp_path / "out")
    assert torch.equal(again.decode(again.encode(images)), model.decode(model.encode(images)))


@pytest.mark.parametrize("entry", ["word", "=x", "x="])
def test_the_command_checks_its_mappings(tmp_path, entry):
    with pytest.raises(UserError, match=r"--map .* is not understood; pass OURS=THEIRS, beginnings of names"):
        run(ConvertOptions(file=tmp_path / "x.pth", output=tmp_path / "out", map=(entry,)))


@pytest.mark.parametrize("other", [{"config": Path("config.json")}, {"kind": "titok-l32"}])
def test_a_pixel_range_that_would_do_nothing_is_refused(tmp_path, other):
    with pytest.raises(UserError, match="--pixel-range"):
        run(ConvertOptions(file=tmp_path / "x.pth", output=tmp_path / "out", pixel_range="0..1", **other))


def test_a_newer_pickle_of_something_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": print}, protocol=4))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert main(["convert", str(tmp_path / "x.pth"), "--output", str(tmp_path / "out")]) == 2
    assert not seen
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
