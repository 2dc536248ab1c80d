"""Weights as other programs leave them: wrapped, in shards, in other precisions, broken."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dove.baselines.config import MaskgitVQGANConfig
from dove.checkpoint import checkpoint_sha256, load_weights, save_checkpoint
from dove.cli import main
from dove.config import DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig
from dove.tokenizer import Dove
from dove.weight_files import strip_wrappers


@pytest.fixture
def folder(tiny_dove: Dove, tmp_path: Path) -> Path:
    """A saved checkpoint."""
    tiny_dove.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")


def shard(folder: Path) -> list[str]:
    """Turn the weights of a folder into two files and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)], {}
    for part, name in enumerate(names):
        chosen = {key: weights[key] for key in sorted(weights)[part::2]}
        save_file(chosen, folder / name)
        places |= dict.fromkeys(chosen, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return names


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["token_decoder.positions"][3, 2] = value
    rewrite(folder, weights)
    with pytest.raises(UserError, match=r"token_decoder\.positions holds NaN or infinity in 1 of 512 places"):
        Dove.from_pretrained(folder)


@pytest.mark.parametrize(
    "prefixes", [["_orig_mod."], ["module."], ["module.", "_orig_mod."], ["_orig_mod.", "module."]]
)
def test_wrappers_leave_no_trace(tiny_dove: Dove, folder: Path, prefixes: list[str]) -> None:
    rewrite(folder, {"".join(prefixes) + name: tensor for name, tensor in tiny_dove.state_dict().items()})
    again = Dove.from_pretrained(folder)
    for name, tensor in tiny_dove.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_compiled_parts_and_parts_called_module() -> None:
    def named(*names: str) -> list[str]:
        return list(strip_wrappers(dict.fromkeys(names, torch.zeros(1))))

    assert named("encoder._orig_mod.weight", "decoder.weight") == ["encoder.weight", "decoder.weight"]
    assert named("module.weight", "other.weight") == ["weight", "other.weight"]
    assert named("module.weight", "module.module.weight") == ["module.weight", "module.module.weight"]
    assert named("weight", "_orig_mod.weight") == ["weight", "_orig_mod.weight"]


def test_shards_are_the_same_model(tiny_dove: Dove, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard(folder)
    again = Dove.from_pretrained(folder)
    for name, tensor in tiny_dove.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    before = checkpoint_sha256(folder)
    assert main(["info", str(folder)]) == 0
    assert before in capsys.readouterr().out
    second = folder / "model-00002-of-00002.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(second).items()}, second)
    assert checkpoint_sha256(folder) != before


def test_a_missing_shard_is_named(folder: Path) -> None:
    names = shard(folder)
    (folder / names[1]).unlink()
    with pytest.raises(UserError, match=f"lacks 1 of 2 weight files: {names[1]}"):
        Dove.from_pretrained(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x"}}'])
def test_a_damaged_index_is_named(folder: Path, content: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json"):
        Dove.from_pretrained(folder)


class Indexed(nn.Module):
    """Floats and the indices of something."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("order", torch.arange(5000))


def test_integers_that_became_floats_are_refused_and_floats_of_any_precision_load() -> None:
    model, order = Indexed(), torch.arange(5000)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        load_weights(model, {"weight": torch.ones(2, dtype=dtype), "order": order}, "here")
        assert model.weight.tolist() == [1, 1]
    with pytest.raises(UserError, match="1 of another type: order floats for int64"):
        load_weights(model, {"weight": torch.ones(2), "order": order.half()}, "here")
    with pytest.raises(UserError, match="1 of another type: weight int8 for floats"):
        load_weights(model, {"weight": torch.ones(2, dtype=torch.int8), "order": order}, "here")


@pytest.mark.parametrize("kind", [DoveConfig, QDoveConfig, VQGANConfig, MaskgitVQGANConfig])
def test_info_knows_every_kind_of_checkpoint(kind: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path, kind(), {"part.weight": torch.zeros(3)})
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == {"part": 3, "total": 3}


def test_info_of_an_unknown_kind_lists_the_known_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "Sparrow"}))
    assert main(["info", str(folder)]) == 2
    assert "'Sparrow'; the known types are Dove, QDove" in capsys.readouterr().err
