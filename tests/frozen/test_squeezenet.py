from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_1

from dove.errors import UserError
from dove.frozen.registry import load_network
from dove.frozen.squeezenet import SQUEEZENET_VARIABLE, SqueezeNet


def assert_same(one: nn.Module, other: nn.Module) -> None:
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_loading_draws_no_random_numbers(squeezenet_weights):
    before = torch.get_rng_state()
    SqueezeNet(squeezenet_weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_files_become_float32(squeezenet_weights):
    assert {parameter.dtype for parameter in SqueezeNet(squeezenet_weights).parameters()} == {torch.float32}


def test_the_classifier_may_be_missing(squeezenet, squeezenet_weights, tmp_path):
    state = {key: value for key, value in squeezenet.state_dict().items() if key.startswith("features.")}
    save_file(state, tmp_path / "features.safetensors")
    assert_same(SqueezeNet(tmp_path / "features.safetensors"), SqueezeNet(squeezenet_weights))


def test_the_environment_names_the_file_unless_an_argument_does(squeezenet_weights, monkeypatch):
    monkeypatch.setenv(SQUEEZENET_VARIABLE, str(squeezenet_weights))
    assert_same(load_network("squeezenet"), SqueezeNet(squeezenet_weights))
    monkeypatch.setenv(SQUEEZENET_VARIABLE, "nowhere")
    SqueezeNet(squeezenet_weights)


def test_without_weights_it_says_how_to_give_them(monkeypatch):
    monkeypatch.delenv(SQUEEZENET_VARIABLE, raising=False)
    with pytest.raises(UserError, match=SQUEEZENET_VARIABLE):
        SqueezeNet()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.safetensors", None, "cannot read"),
        ("text.safetensors", b"not weights", "is damaged"),
        ("empty.safetensors", b"", "is damaged"),
        ("text.pth", b"not weights", "is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        SqueezeNet(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_damaged(squeezenet_weights, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(squeezenet_weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is damaged"):
        SqueezeNet(tmp_path / "cut.safetensors")


def test_a_pickle_runs_nothing(tmp_path):
    torch.save({"features.0.weight": Path("x")}, tmp_path / "object.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        SqueezeNet(tmp_path / "object.pth")


def test_a_nested_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match=r"nested\.pth has no tensor .* 'features\.'; its names start with state_dict"):
        SqueezeNet(tmp_path / "nested.pth")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (squeezenet1_1, r"other\.safetensors does not hold torchvision's squeezenet1_0"),
        (
            lambda: nn.Linear(2, 2),
            r"other\.safetensors has no tensor .* 'features\.'; its names start with bias, weight",
        ),
    ],
)
def test_another_network_is_refused(tmp_path, other, message):
    save_file(dict(other().state_dict()), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=message):
        SqueezeNet(tmp_path / "other.safetensors")


def test_weights_that_are_not_finite_are_refused(squeezenet, tmp_path):
    state = squeezenet.state_dict() | {"features.0.bias": torch.full((96,), torch.nan)}
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="holds NaN or infinity"):
        SqueezeNet(tmp_path / "nan.safetensors")
