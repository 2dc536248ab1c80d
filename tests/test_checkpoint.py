import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from dove.checkpoint import load_checkpoint, read_model_type, save_checkpoint, shipped_checkpoints
from dove.config import DoveConfig, VQGANConfig, added, config_from_dict
from dove.errors import UserError
from dove.registry import load_tokenizer
from dove.runtime import save_outputs
from dove.tokenizer import Dove
from dove.vlm.model import VisionLanguageModel


@pytest.fixture
def folder(tiny_dove: Dove, tmp_path: Path) -> Path:
    """A saved checkpoint."""
    tiny_dove.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_round_trip_is_bitwise(tiny_dove, folder, images):
    again = Dove.from_pretrained(folder)
    assert again.config == tiny_dove.config
    assert not again.training
    for name, tensor in tiny_dove.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(again.decode(again.encode(images)), tiny_dove.decode(tiny_dove.encode(images)))


def test_the_folder_is_readable_and_light(folder):
    assert sorted(contents(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["vqgan"]["block_out_channels"] == [8, 16]
    assert "dove" in (folder / "README.md").read_text()
    assert not any("embed_in" in name for name in load_file(folder / "model.safetensors"))
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_half_precision_on_disk_is_fp32_in_memory(tiny_dove, tmp_path, images):
    tiny_dove.save_pretrained(tmp_path, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    again = Dove.from_pretrained(tmp_path)
    for name, tensor in tiny_dove.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float()), name
    assert again.encode(images, 4).values.dtype == torch.float32


def test_an_existing_card_is_kept(tiny_dove, folder):
    (folder / "README.md").write_text("mine")
    tiny_dove.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize("failing_write", [1, 2])
def test_no_space_leaves_the_old_files_whole(tiny_dove, folder, monkeypatch, failing_write):
    before = contents(folder)
    calls = []

    def full_disk(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dove.checkpoint.os.fsync", full_disk)
    torch.nn.init.zeros_(tiny_dove.token_decoder.positions)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        tiny_dove.save_pretrained(folder)
    assert contents(folder) == before


def test_a_folder_that_cannot_be_made_is_named(tiny_dove, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot write .*file/checkpoint: .*file is a file, not a folder; pass another path"
    ):
        tiny_dove.save_pretrained(tmp_path / "file" / "checkpoint")


@pytest.mark.parametrize("below", ["picture.png", "folder/picture.png"])
def test_an_output_below_a_file_asks_for_another_path(tmp_path, below):
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(UserError, match=r"file.txt is a file, not a folder; pass another path"):
        save_outputs({tmp_path / "file.txt" / below: b""})
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_a_shipped_name_of_another_type_is_answered_with_one_that_works():
    with pytest.raises(UserError, match=r"of type Cosines, not Dove; pass .*dove-tiny"):
        Dove.from_pretrained("cosines")


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_truncated_weights(folder, keep):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model.safetensors is damaged .*; copy or download it again"):
        Dove.from_pretrained(folder)


def test_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        Dove.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00"])
def test_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json is not (a usable config|JSON)"):
        Dove.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_file(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"checkpoint has no {missing}; pass a complete checkpoint folder"):
        Dove.from_pretrained(folder)


def test_weights_that_do_not_fit_the_config(tiny_dove, folder):
    weights = load_file(folder / "model.safetensors")
    weights["surplus"] = torch.zeros(1)
    weights["token_decoder.positions"] = torch.zeros(16, 31)
    del weights["generator.grid_positions"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        Dove.from_pretrained(folder)
    for part in (
        "1 missing: generator.grid_positions",
        "1 unknown: surplus",
        "token_decoder.positions (16, 31) for (16, 32)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_never_loaded(tiny_dove, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("a pickle was opened"))
    pickle = tmp_path / f"model{suffix}"
    pickle.write_bytes(b"")
    with pytest.raises(UserError, match="is a pickle.*`dove convert`"):
        Dove.from_pretrained(pickle)
    save_checkpoint(tmp_path, tiny_dove.config, {})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"has no model.safetensors; model{suffix} is a pickle: use `dove convert`"):
        Dove.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["dove-huge", "./nowhere/at/all", "/nowhere/at/all"])
def test_unknown_names_list_the_shipped_ones(folder, monkeypatch, name):
    monkeypatch.setattr("dove.checkpoint.shipped_checkpoints", lambda: {"dove-small": folder, "dove-smaller": folder})
    with pytest.raises(UserError, match=f"no checkpoint '{name}'.*dove-small, dove-smaller"):
        Dove.from_pretrained(name)


def test_shipped_names_and_folders(folder, monkeypatch):
    monkeypatch.setattr("dove.checkpoint.shipped_checkpoints", lambda: {"dove-small": folder})
    assert isinstance(Dove.from_pretrained("dove-small"), Dove)
    assert isinstance(Dove.from_pretrained(str(folder)), Dove)
    with pytest.raises(UserError, match="is a file; pass the checkpoint folder"):
        Dove.from_pretrained(folder / "model.safetensors")


def test_every_shipped_checkpoint_loads():
    for folder in shipped_checkpoints().values():
        if read_model_type(folder) == "VLM":
            VisionLanguageModel.from_pretrained(folder, device="cpu")
        else:
            load_tokenizer(folder)


def test_hub_ids_are_downloaded(folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "dove.checkpoint.snapshot_download", lambda name, **options: asked.update(options, name=name) or str(folder)
    )
    assert isinstance(Dove.from_pretrained("somebody/dove", revision="v1"), Dove)
    assert asked["name"] == "somebody/dove"
    assert asked["revision"] == "v1"


def test_an_unreachable_hub(monkeypatch):
    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("dove.checkpoint.snapshot_download", offline)
    with pytest.raises(UserError, match="cannot load 'somebody/dove'.*no connection.*check the name and the network"):
        Dove.from_pretrained("somebody/dove")


def test_push_to_hub_uploads_a_checkpoint(tiny_dove, monkeypatch):
    uploaded = {}

    class FakeApi:
        def __init__(self, **options):
            pass

        def create_repo(self, repo_id, **options):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **options):
            uploaded.update(contents(Path(folder_path)))
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", FakeApi)
    assert tiny_dove.push_to_hub("somebody/dove") == "https://hub/commit"
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]


def spoiled(**changes: object) -> dict[str, object]:
    return {**asdict(DoveConfig()), **changes}


def test_config_survives_json():
    assert config_from_dict(json.loads(json.dumps(asdict(DoveConfig())))) == DoveConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (spoiled(max_token=3), "unknown max_token"),
        ({"max_tokens": 3}, "missing vqgan, generator, decoder, token_dim"),
        (spoiled(vqgan={"image_size": 3, "depth": 2}), "unknown vqgan.depth; missing vqgan.patch_size"),
        (spoiled(max_tokens="many"), "setting max_tokens is 'many'; it must be int"),
        (spoiled(max_tokens=True), "setting max_tokens is True"),
        (spoiled(eos_head="none"), "setting eos_head is 'none'; it must be .*binary.*vocab"),
        (spoiled(decoder=None), "decoder is None; it must be a table"),
    ],
)
def test_config_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        config_from_dict(values)


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class GrownConfig:
    old: int = 1
    new: int = added(2)
    inner: Inner | None = added(None)


def test_a_setting_that_came_later_may_be_missing():
    assert config_from_dict({"old": 5}, GrownConfig) == GrownConfig(old=5)
    assert config_from_dict({"old": 5, "inner": {"size": 4}}, GrownConfig).inner == Inner(size=4)
    with pytest.raises(UserError, match=r"setting new is 'x'"):
        config_from_dict({"old": 5, "new": "x"}, GrownConfig)


def test_the_kind_of_model_is_told(folder, tmp_path):
    assert read_model_type(folder) == "Dove"
    with pytest.raises(UserError, match="describes a model of type Dove, not VQGAN"):
        load_checkpoint(folder, VQGANConfig)
    with pytest.raises(UserError, match=r"has no config.json"):
        read_model_type(tmp_path)


def test_a_checkpoint_of_the_older_layout_says_so(tiny_dove, tmp_path):
    tiny_dove.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"token_basis": "cosines", "token_decoder": "all"}))
    with pytest.raises(
        UserError, match=r"older layout \(it has token_basis, token_decoder\).* the version that wrote it"
    ):
        Dove.from_pretrained(tmp_path)
