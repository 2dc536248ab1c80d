import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_0, squeezenet1_1, vgg

from dove.errors import UserError
from dove.losses.perceptual import (
    SQUEEZENET_VARIABLE,
    LpipsPerceptual,
    PerceptualDistance,
    SqueezeNetPerceptual,
    make_perceptual,
)

SIZE = 32


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    """An untrained SqueezeNet, rounded to half precision as a file may hold it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squeezenet1_0().half().float().eval()


@pytest.fixture(scope="module")
def weights(squeezenet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file({key: value.half().contiguous() for key, value in squeezenet.state_dict().items()}, path)
    return path


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


def test_agrees_with_a_plain_computation(squeezenet, weights, pair):
    found = SqueezeNetPerceptual(weights)(*pair)
    expected = [reference(squeezenet, a, b) for a, b in zip(*pair, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 1e-3


def test_equal_images_are_at_distance_0(weights, pair):
    assert SqueezeNetPerceptual(weights)(pair[0], pair[0]).tolist() == [0, 0, 0]


def test_maps_at_hand_give_the_same_distance(weights, pair):
    distance = SqueezeNetPerceptual(weights)
    assert torch.equal(distance.distance(*map(distance.maps, pair)), distance(*pair))


def test_gradient_reaches_only_the_first_argument(weights, pair):
    reconstruction, images = (images.requires_grad_() for images in pair)
    distance = SqueezeNetPerceptual(weights)
    distance(reconstruction, images).sum().backward()
    assert reconstruction.grad.isfinite().all()
    assert reconstruction.grad.count_nonzero() > 0
    assert images.grad is None
    assert all(not parameter.requires_grad for parameter in distance.parameters())


def test_a_step_along_the_gradient_lowers_the_distance(weights, pair):
    distance = SqueezeNetPerceptual(weights)
    reconstruction, images = pair[0].requires_grad_(), pair[1]
    before = distance(reconstruction, images).sum()
    (gradient,) = torch.autograd.grad(before, reconstruction)
    assert distance(reconstruction - 1e-2 * gradient / gradient.norm(), images).sum() < before


def test_silent_features_give_finite_gradients(squeezenet, tmp_path):
    save_file(
        {key: torch.zeros_like(value) for key, value in squeezenet.state_dict().items()}, tmp_path / "x.safetensors"
    )
    reconstruction = torch.ones(1, 3, SIZE, SIZE, requires_grad=True)
    SqueezeNetPerceptual(tmp_path / "x.safetensors")(reconstruction, -reconstruction.detach()).sum().backward()
    assert reconstruction.grad.isfinite().all()


def test_stays_in_eval_mode_inside_a_training_module(weights):
    parent = nn.Sequential(SqueezeNetPerceptual(weights)).train()
    assert not any(module.training for module in parent[0].modules())


def test_loading_draws_no_random_numbers(weights):
    before = torch.get_rng_state()
    SqueezeNetPerceptual(weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_files_become_float32(weights):
    assert {parameter.dtype for parameter in SqueezeNetPerceptual(weights).parameters()} == {torch.float32}


def test_runs_under_bfloat16_autocast(weights, pair):
    distance = SqueezeNetPerceptual(weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance(*pair)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(*pair), rtol=0.1, atol=1e-3)


def test_the_classifier_may_be_missing(squeezenet, weights, tmp_path, pair):
    state = {key: value for key, value in squeezenet.state_dict().items() if key.startswith("features.")}
    save_file(state, tmp_path / "features.safetensors")
    expected = SqueezeNetPerceptual(weights)(*pair)
    assert torch.equal(SqueezeNetPerceptual(tmp_path / "features.safetensors")(*pair), expected)


def test_the_environment_names_the_file_unless_an_argument_does(weights, monkeypatch, pair):
    monkeypatch.setenv(SQUEEZENET_VARIABLE, str(weights))
    assert torch.equal(make_perceptual("squeezenet")(*pair), SqueezeNetPerceptual(weights)(*pair))
    monkeypatch.setenv(SQUEEZENET_VARIABLE, "nowhere")
    SqueezeNetPerceptual(weights)


def test_the_smallest_image_works_and_one_below_is_refused(weights):
    distance = SqueezeNetPerceptual(weights)
    size = distance.min_image_size
    assert distance(torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size)).isfinite().all()
    with pytest.raises(UserError, match=f"20x{size} px are too small"):
        distance(torch.zeros(1, 3, size, 20), torch.ones(1, 3, size, 20))


def test_reports_never_call_it_lpips():
    assert SqueezeNetPerceptual.metric_name == "perceptual_squeezenet"


def test_without_weights_it_says_how_to_give_them(monkeypatch):
    monkeypatch.delenv(SQUEEZENET_VARIABLE, raising=False)
    with pytest.raises(UserError, match=SQUEEZENET_VARIABLE):
        SqueezeNetPerceptual()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.safetensors", None, "no weights file at"),
        ("text.safetensors", b"not weights", "is damaged"),
        ("empty.safetensors", b"", "is damaged"),
        ("text.pth", b"not weights", "is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        SqueezeNetPerceptual(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_damaged(weights, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is damaged"):
        SqueezeNetPerceptual(tmp_path / "cut.safetensors")


def test_a_pickle_runs_nothing(tmp_path):
    torch.save({"features.0.weight": Path("x")}, tmp_path / "object.pth")
    with pytest.raises(UserError, match="is damaged"):
        SqueezeNetPerceptual(tmp_path / "object.pth")


def test_a_nested_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match="flat state dict"):
        SqueezeNetPerceptual(tmp_path / "nested.pth")


@pytest.mark.parametrize("other", [squeezenet1_1, lambda: nn.Linear(2, 2)])
def test_another_network_is_refused(tmp_path, other):
    save_file(dict(other().state_dict()), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not hold torchvision's squeezenet1_0"):
        SqueezeNetPerceptual(tmp_path / "other.safetensors")


def test_weights_that_are_not_finite_are_refused(squeezenet, tmp_path):
    state = squeezenet.state_dict() | {"features.0.bias": torch.full((96,), torch.nan)}
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="not finite"):
        SqueezeNetPerceptual(tmp_path / "nan.safetensors")


def test_none_gives_zeros_without_a_network(pair):
    distance = make_perceptual("none")
    assert isinstance(distance, PerceptualDistance)
    assert distance(*pair).tolist() == [0, 0, 0]
    assert not list(distance.parameters())


def test_none_with_weights_is_a_contradiction(weights):
    with pytest.raises(UserError, match="takes no weights"):
        make_perceptual("none", weights)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="none, squeezenet, lpips"):
        make_perceptual("vgg19")


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
    def test_another_network_is_refused(self, weights):
        with pytest.raises(UserError, match="does not hold torchvision's vgg16"):
            LpipsPerceptual(weights)

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
