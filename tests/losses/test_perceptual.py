import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import vgg

from dove.errors import UserError
from dove.frozen.squeezenet import SqueezeNet
from dove.losses.perceptual import FeatureDistance, LpipsPerceptual, make_perceptual, map_distance

SIZE = 32


@pytest.fixture(scope="module")
def distance(squeezenet_weights: Path) -> FeatureDistance:
    return FeatureDistance(SqueezeNet(squeezenet_weights))


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 3, 3, SIZE, SIZE, generator=generator) * 2 - 1
    return first, second


def reference(network: nn.Module, a: torch.Tensor, b: torch.Tensor) -> float:
    """The distance of two single images (3, H, W), by hooks on named stages, position by position."""
    maps: list[torch.Tensor] = []
    stages = [network.features[1], network.features[5], network.features[10], network.features[12]]
    hooks = [stage.register_forward_hook(lambda _m, _i, out: maps.append(out.clone())) for stage in stages]
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        network(normalise(torch.stack([a, b]) / 2 + 0.5))
    for hook in hooks:
        hook.remove()
    layers = []
    for features in maps:
        left, right = features.double().flatten(2)  # (C, positions) each
        layers.append(
            sum(4 * torch.sin(angle(x, y) / 2) ** 2 for x, y in zip(left.T, right.T, strict=True)) / len(left.T)
        )
    return float(sum(layers) / len(layers))


def angle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The angle between two vectors: unit vectors are 2 sin(angle / 2) apart."""
    return torch.acos((x @ y / (x.norm() * y.norm())).clamp(-1, 1))


def test_agrees_with_a_plain_computation(squeezenet, distance, pair):
    found = distance(*pair)
    expected = [reference(squeezenet, a, b) for a, b in zip(*pair, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 1e-3


def test_equal_images_are_at_distance_0(distance, pair):
    assert distance(pair[0], pair[0]).tolist() == [0, 0, 0]


def test_maps_at_hand_give_the_same_distance(distance, pair):
    assert torch.equal(map_distance(*map(distance.network.maps, pair)), distance(*pair))


def test_gradient_reaches_only_the_first_argument(distance, pair):
    reconstruction, images = (images.requires_grad_() for images in pair)
    distance(reconstruction, images).sum().backward()
    assert reconstruction.grad.isfinite().all()
    assert reconstruction.grad.count_nonzero() > 0
    assert images.grad is None
    assert all(not parameter.requires_grad for parameter in distance.parameters())


def test_a_step_along_the_gradient_lowers_the_distance(distance, pair):
    reconstruction, images = pair[0].requires_grad_(), pair[1]
    before = distance(reconstruction, images).sum()
    (gradient,) = torch.autograd.grad(before, reconstruction)
    assert distance(reconstruction - 1e-2 * gradient / gradient.norm(), images).sum() < before


def test_silent_features_give_finite_gradients(squeezenet, tmp_path):
    save_file(
        {key: torch.zeros_like(value) for key, value in squeezenet.state_dict().items()}, tmp_path / "x.safetensors"
    )
    reconstruction = torch.ones(1, 3, SIZE, SIZE, requires_grad=True)
    silent = FeatureDistance(SqueezeNet(tmp_path / "x.safetensors"))
    silent(reconstruction, -reconstruction.detach()).sum().backward()
    assert reconstruction.grad.isfinite().all()


def test_stays_in_eval_mode_inside_a_training_module(distance):
    parent = nn.Sequential(distance).train()
    assert not any(module.training for module in parent[0].modules())


def test_runs_under_bfloat16_autocast(distance, pair):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance(*pair)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(*pair), rtol=0.1, atol=1e-3)


def test_the_smallest_image_works_and_one_below_is_refused(distance):
    size = distance.network.min_image_size
    assert distance(torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size)).isfinite().all()
    with pytest.raises(UserError, match=f"20x{size} px are too small"):
        distance(torch.zeros(1, 3, size, 20), torch.ones(1, 3, size, 20))


def test_none_with_weights_is_a_contradiction(squeezenet_weights):
    with pytest.raises(UserError, match="takes no weights"):
        make_perceptual("none", squeezenet_weights)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="'vgg19'; choose none, lpips, squeezenet, efficientnet-lite0"):
        make_perceptual("squeezenet+vgg19")


@pytest.mark.parametrize("name", ["squeezenet+squeezenet", "none+squeezenet", "timm:", ""])
def test_names_that_make_no_sense_are_refused(name):
    with pytest.raises(UserError, match="perceptual network"):
        make_perceptual(name)


def test_a_file_for_two_networks_that_read_one_is_refused(squeezenet_weights):
    with pytest.raises(UserError, match="takes several weights files"):
        make_perceptual("squeezenet+lpips", squeezenet_weights)


def test_a_combination_is_the_mean(distance, squeezenet_weights, pair):
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the align extra")
    combined = make_perceptual("squeezenet+efficientnet-lite0", squeezenet_weights)
    other = make_perceptual("efficientnet-lite0")
    expected = (distance(*pair) + other(*pair)) / 2
    torch.testing.assert_close(combined(*pair), expected, rtol=1e-4, atol=1e-6)


def test_samples_of_a_batch_do_not_see_each_other(distance, pair):
    alone = torch.cat([distance(a[None], b[None]) for a, b in zip(*pair, strict=True)])
    torch.testing.assert_close(distance(*pair), alone, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def layers() -> nn.Sequential:
    """VGG-16 without its classifier, whose 120 million weights LPIPS never reads."""
    pytest.importorskip("lpips", reason="needs the lpips package")
    return vgg.make_layers(vgg.cfgs["D"])


class TestLpips:
    @pytest.fixture
    def light_vgg(self, layers, monkeypatch):
        """torchvision's constructor gives shared layers at once."""
        monkeypatch.setattr(torchvision.models, "vgg16", lambda **_: SimpleNamespace(features=layers))

    @pytest.fixture
    def vgg_weights(self, layers, tmp_path) -> Path:
        generator = torch.Generator().manual_seed(2)
        state = {
            f"features.{key}": torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
            for key, value in layers.state_dict().items()
        }
        torch.save(state, tmp_path / "vgg16.pth")
        return tmp_path / "vgg16.pth"

    @pytest.mark.usefixtures("light_vgg")
    def test_takes_torchvisions_file_and_gives_a_distance(self, vgg_weights, pair):
        distance = make_perceptual("lpips", vgg_weights)
        loaded = distance.network.net.slice3.state_dict()["10.weight"]
        assert torch.equal(loaded, torch.load(vgg_weights)["features.10.weight"])
        reconstruction, images = (images.requires_grad_() for images in pair)
        found = distance(reconstruction, images)
        assert found.shape == (3,)
        assert (found > 0).all()
        found.sum().backward()
        assert reconstruction.grad.count_nonzero() > 0
        assert images.grad is None
        assert distance(reconstruction, reconstruction).tolist() == [0, 0, 0]

    @pytest.mark.usefixtures("light_vgg")
    def test_another_network_is_refused(self, squeezenet_weights):
        with pytest.raises(UserError, match="does not hold torchvision's vgg16"):
            LpipsPerceptual(squeezenet_weights)

    @pytest.mark.usefixtures("layers")
    def test_unreachable_weights_say_what_to_give(self, monkeypatch):
        def refuse(**_: object) -> None:
            raise URLError("no route")

        monkeypatch.setattr(torchvision.models, "vgg16", refuse)
        with pytest.raises(UserError, match=r"no route.*give them as a file"):
            LpipsPerceptual()

    def test_a_missing_package_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "lpips", None)
        with pytest.raises(UserError, match="pip install lpips"):
            LpipsPerceptual()
