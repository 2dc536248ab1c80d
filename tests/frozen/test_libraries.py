"""Networks of timm and transformers, tiny and untrained, from folders."""

import json
import sys
from pathlib import Path

import pytest
import torch

from dove.errors import UserError
from dove.frozen.registry import load_network

MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.4, 0.25]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1


def normalised(images: torch.Tensor) -> torch.Tensor:
    """What a network expects, channel by channel."""
    channels = ((images + 1) / 2).unbind(1)
    return torch.stack([(x - m) / s for x, m, s in zip(channels, MEAN, STD, strict=True)], dim=1)


def check_gradients(network, images: torch.Tensor) -> None:
    inputs = images.clone().requires_grad_()
    sum(features.square().sum() for features in network.maps(inputs)).backward()
    assert inputs.grad.flatten(1).count_nonzero(1).min() > 1000
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.train().modules())


class TestTimm:
    @pytest.fixture
    def save(self, tmp_path_factory):
        timm = pytest.importorskip("timm", reason="needs the align extra")

        def save(architecture: str) -> tuple[torch.nn.Module, Path]:
            folder = tmp_path_factory.mktemp(architecture)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = timm.create_model(architecture).eval()
            model.pretrained_cfg = model.pretrained_cfg | {"mean": MEAN, "std": STD}
            timm.models.save_for_hf(model, folder, safe_serialization=True)
            return model, folder

        return save

    def test_a_vision_transformer_gives_grids_of_its_patches(self, save, images):
        model, folder = save("test_vit")
        network = load_network(f"timm:local-dir:{folder}")
        maps = network.maps(images)
        side = 64 // model.patch_embed.patch_size[0]
        assert [tuple(features.shape) for features in maps] == [(2, network.width, side, side)] * len(maps)
        model.set_input_size((64, 64))
        found: list[torch.Tensor] = []
        model.blocks[-1].register_forward_hook(lambda _m, _i, out: found.append(out))
        model(normalised(images))
        tokens = found[0][:, model.num_prefix_tokens :]
        torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tokens, rtol=1e-3, atol=1e-3)
        check_gradients(network, images)

    def test_a_convolutional_network_gives_a_map_a_stage(self, save, images):
        model, folder = save("test_resnet")
        network = load_network(f"timm:local-dir:{folder}")
        maps = network.maps(images)
        torch.testing.assert_close(maps[-1], model.forward_features(normalised(images)), rtol=1e-3, atol=1e-3)
        assert [features.shape[-1] for features in maps] == [32, 16, 8, 4, 2]
        assert network.pooled(maps).shape == (2, network.width)
        with pytest.raises(UserError, match="too small"):
            network.maps(images[..., :16])
        check_gradients(network, images)

    def test_loading_draws_no_random_numbers(self, save):
        _, folder = save("test_vit")
        before = torch.get_rng_state()
        load_network(f"timm:local-dir:{folder}")
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_unknown_model_is_one_clear_line(self, save):
        with pytest.raises(UserError, match="cannot load timm:no_such_model") as caught:
            load_network("timm:no_such_model")
        assert "\n" not in str(caught.value)

    def test_a_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(UserError, match=r"dove-encoder\[align\]"):
            load_network("timm:resnet18")


class TestTransformers:
    @pytest.fixture
    def save(self, tmp_path):
        def save(name: str, **settings: object) -> tuple[torch.nn.Module, Path]:
            import transformers

            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings)).eval()
            model.save_pretrained(tmp_path)
            (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
            return model, tmp_path

        return save

    @pytest.mark.parametrize(
        ("name", "prefix", "settings"),
        [("ViT", 1, {}), ("Dinov2WithRegisters", 4, {"num_register_tokens": 3}), ("SiglipVision", 0, {})],
    )
    def test_a_vision_transformer_gives_grids_of_its_patches(self, save, images, name, prefix, settings):
        settings |= {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
        model, folder = save(name, image_size=64, patch_size=16, **settings)
        network = load_network(f"transformers:{folder}")
        maps = network.maps(images)
        assert [tuple(features.shape) for features in maps] == [(2, 16, 4, 4)] * 4
        with torch.no_grad():
            output = model(normalised(images), output_hidden_states=True)
        for features, state in zip(maps, [*output.hidden_states[1:-1], output.last_hidden_state], strict=True):
            expected = state[:, prefix:].reshape(2, 4, 4, 16).permute(0, 3, 1, 2)
            torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
        assert network.maps(images[..., :32])[-1].shape == (2, 16, 4, 2)
        check_gradients(network, images)

    def test_a_tower_of_a_model_of_images_and_text_is_found(self, save, images):
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        _, folder = save(
            "CLIP",
            vision_config=sizes | {"image_size": 32, "patch_size": 8},
            text_config=sizes | {"vocab_size": 50},
            projection_dim=8,
        )
        network = load_network(f"transformers:{folder}")
        assert [tuple(features.shape) for features in network.maps(images)] == [(2, 16, 8, 8)] * 2
        assert not any("text" in name for name, _ in network.named_parameters())

    def test_a_convolutional_network_gives_a_map_a_stage(self, save, images):
        _, folder = save(
            "ResNet", embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic"
        )
        network = load_network(f"transformers:{folder}")
        assert [tuple(features.shape[1:]) for features in network.maps(images)] == [
            (8, 16, 16),
            (12, 8, 8),
            (16, 4, 4),
            (20, 2, 2),
        ]
        assert network.width == 20

    def test_a_missing_folder_is_one_clear_line(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(UserError, match="cannot load transformers:") as caught:
            load_network(f"transformers:{tmp_path / 'missing'}")
        assert "\n" not in str(caught.value)


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(
        UserError, match="squeezenet, efficientnet-lite0, mobilenet-v2, timm:MODEL or transformers:MODEL"
    ):
        load_network("vgg19")
