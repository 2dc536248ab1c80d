"""Metrics by frozen networks: columns, what is measured once, and what is left out."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dove.cli import main
from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.errors import UserError
from dove.evaluation.networks import FeatureMetric, loss_networks
from dove.frozen.mobilenet import mobilenet_at_hand
from dove.frozen.network import FrozenNetwork
from dove.frozen.squeezenet import SQUEEZENET_VARIABLE
from dove.losses.perceptual import make_perceptual
from dove.processor import ImageProcessor
from dove.tokenizer import Dove
from dove.training.setup import save_model

NETWORKS = {"squeezenet": "squeezenet", "efficientnet": "efficientnet-lite0", "mobilenet": "mobilenet-v2"}


class Colours(FrozenNetwork):
    """Three features: the mean colours."""

    width = 3
    min_image_size = 4

    def __init__(self) -> None:
        super().__init__("colours", nn.Identity(), (0.0,) * 3, (1.0,) * 3)

    def _features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [self.layers(pixels)]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint for 32 px and six pictures."""
    monkeypatch.setenv("DOVE_CACHE", str(tmp_path / "cache"))
    backbone = BackboneConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, rotary_fraction=0.25)
    vqgan = VQGANConfig(
        image_size=32,
        patch_size=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=8,
        codebook_size=32,
        norm_groups=4,
    )
    torch.manual_seed(0)
    model = Dove(DoveConfig(vqgan=vqgan, generator=backbone, decoder=backbone, max_tokens=16, token_dim=8)).eval()
    save_model(model, tmp_path / "model", ["squeezenet", "timm:resnet18"])
    (tmp_path / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        corners = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        corners.resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def evaluate(desk: Path, *flags: str) -> int:
    common = ["--model", str(desk / "model"), "--data", str(desk / "photos"), "--output", str(desk / "out")]
    return main(["evaluate", "reconstruction", *common, *flags])


def rows(desk: Path) -> list[dict[str, object]]:
    return json.loads((desk / "out" / "reconstruction.json").read_text())["rows"]


def test_networks_at_hand_give_their_distances(desk, squeezenet_weights, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the align extra")
    at_hand = {label: name for label, name in NETWORKS.items() if label != "mobilenet" or mobilenet_at_hand()}
    monkeypatch.setenv(SQUEEZENET_VARIABLE, str(squeezenet_weights))
    assert evaluate(desk, "--num-tokens", "2") == 0
    assert "left out: fd_efficientnet of 6 images" in capsys.readouterr().err
    (row,) = rows(desk)
    assert {name for name in row if name.startswith(("perceptual", "fd"))} == {
        f"perceptual_{label}" for label in at_hand
    }
    assert row["loss_networks"] == "squeezenet+timm:resnet18"
    model = Dove.from_pretrained(desk / "model")
    images = ImageProcessor(32)([desk / "photos" / f"{number}.png" for number in range(6)])
    rebuilt = model.decode(model.encode(images, 2))
    for name, network in at_hand.items():
        assert row[f"perceptual_{name}"] == pytest.approx(
            make_perceptual(network)(rebuilt, images).mean().item(), rel=1e-4
        )


def test_metrics_that_are_named_are_the_only_ones(desk, squeezenet_weights):
    flags = ["--metrics", "fd_squeezenet", "--perceptual-weights", str(squeezenet_weights), "--allow-few-images"]
    assert evaluate(desk, "--num-tokens", "1", "4", *flags) == 0
    assert {name for name in rows(desk)[0] if name.startswith(("perceptual", "fd"))} == {"fd_squeezenet"}


def test_originals_pass_the_network_once(desk, squeezenet_weights, monkeypatch):
    passed: list[int] = []
    original = FrozenNetwork.maps

    def counting(self: FrozenNetwork, images: torch.Tensor) -> list[torch.Tensor]:
        passed.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FrozenNetwork, "maps", counting)
    flags = ["--metrics", "perceptual_squeezenet", "--perceptual-weights", str(squeezenet_weights)]
    assert evaluate(desk, "--num-tokens", "1", "2", "4", *flags) == 0
    assert passed == [6] * 4


def test_what_was_asked_for_is_never_left_out(desk, squeezenet_weights, capsys):
    flags = ["--num-tokens", "2", "--perceptual-weights", str(squeezenet_weights)]
    assert evaluate(desk, *flags) == 2
    assert "fd_squeezenet of 6 images says little" in capsys.readouterr().err


def test_too_small_images_are_refused():
    metric = FeatureMetric(Colours(), torch.device("cpu"))
    with pytest.raises(UserError, match="3 px are too small for fd_colours, perceptual_colours, whose network needs 4"):
        metric.fit(3, 100, set(), allow_few_images=True)


def test_too_few_images_are_refused():
    metric = FeatureMetric(Colours(), torch.device("cpu"))
    metric.fit(8, 4, set(), allow_few_images=False)
    with pytest.raises(UserError, match="fd_colours of 3 images .* at least 4 images.*--allow-few-images"):
        metric.fit(8, 3, set(), allow_few_images=False)


def test_features_are_compared_and_averaged():
    metric = FeatureMetric(Colours(), torch.device("cpu"))
    images = torch.zeros(2, 3, 4, 4)
    images[:, 0] = 1
    others = torch.zeros(2, 3, 4, 4) - 1
    others[1, 0] = 1
    first, second = metric.features(images), metric.features(others)
    torch.testing.assert_close(first.pooled, torch.tensor([[1.0, 0.5, 0.5]]).expand(2, 3))
    # (1, .5, .5) is 1/sqrt(1.5) long along the first axis: 2 - 2 cos = 2 - 2 / sqrt(1.5); black has no direction.
    torch.testing.assert_close(metric.distance(second, first), torch.tensor([1.0, 2 - 2 / 1.5**0.5]))
    assert metric.distance(first, first).tolist() == [0, 0]


def test_a_card_or_a_config_knows_the_networks(desk, tmp_path):
    assert loss_networks(desk / "model") == "squeezenet+timm:resnet18"
    (desk / "model" / "README.md").write_text("# Only text\n")
    assert loss_networks(desk / "model") is None
    config = json.loads((desk / "model" / "config.json").read_text())
    (desk / "model" / "config.json").write_text(json.dumps(config | {"quality_perceptual": "lpips"}))
    assert loss_networks(desk / "model") == "lpips"
    (desk / "model" / "README.md").write_text("---\nloss_networks: {broken\n---\n")
    assert loss_networks(desk / "model") == "lpips"
    assert loss_networks(tmp_path / "missing") is None


class Package(ModuleType):
    """The package dreamsim with a network of the mean colours."""

    def dreamsim(self, *, pretrained: bool, device: str, cache_dir: str) -> tuple[nn.Module, None]:
        assert pretrained
        assert Path(cache_dir).is_dir()
        network = nn.Linear(1, 1)
        network.embed = self.embed
        return network, None

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[1:] == (3, 224, 224)
        assert 0 <= pixels.min() <= pixels.max() <= 1
        return pixels.mean((2, 3))


def test_dreamsim_is_asked_through_its_package(desk, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    assert evaluate(desk, "--num-tokens", "2", "--metrics", "dreamsim") == 2
    assert "pip install 'dove-encoder[dreamsim]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "dreamsim", Package("dreamsim"))
    assert evaluate(desk, "--num-tokens", "2", "--metrics", "dreamsim") == 0
    (row,) = rows(desk)
    model = Dove.from_pretrained(desk / "model")
    images = ImageProcessor(32)([desk / "photos" / f"{number}.png" for number in range(6)])
    colours = [(pixels.clamp(-1, 1) + 1).mean((2, 3)) for pixels in (images, model.decode(model.encode(images, 2)))]
    assert row["dreamsim"] == pytest.approx(1 - torch.cosine_similarity(*colours).mean().item(), abs=2e-3)


def test_dreamsim_s_weights_out_of_reach_are_one_line(desk, monkeypatch, capsys):
    package = Package("dreamsim")
    monkeypatch.setattr(package, "dreamsim", lambda **_: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setitem(sys.modules, "dreamsim", package)
    assert evaluate(desk, "--num-tokens", "2", "--metrics", "dreamsim") == 2
    assert "cannot load DreamSim's weights (no network); run this once with network" in capsys.readouterr().err
