"""Models small enough to build anew in every test."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_0

from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.tokenizer import Dove

torch.set_num_threads(1)
settings.register_profile("dove", deadline=None)  # a busy machine is no error
settings.load_profile("dove")


@pytest.fixture
def tiny_config() -> DoveConfig:
    """16 px images, a 4x4 grid of 16 latents of width 8, 16 tokens of width 24."""
    backbone = BackboneConfig(
        hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, rotary_fraction=0.25, initializer_range=0.2
    )
    return DoveConfig(
        vqgan=VQGANConfig(
            image_size=16,
            patch_size=2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            latent_channels=8,
            codebook_size=32,
            norm_groups=4,
        ),
        generator=backbone,
        decoder=backbone,
        max_tokens=16,
        token_dim=24,
        vocab_size=40,
    )


@pytest.fixture
def tiny_dove(tiny_config: DoveConfig) -> Dove:
    """An untrained tokenizer, the same in every test."""
    torch.manual_seed(0)
    return Dove(tiny_config).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Three 16 px images of noise in [-1, 1]."""
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="session")
def squeezenet() -> nn.Module:
    """An untrained SqueezeNet, rounded to half precision as a file may hold it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squeezenet1_0().half().float().eval()


@pytest.fixture(scope="session")
def squeezenet_weights(squeezenet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights file, in half precision."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file({key: value.half().contiguous() for key, value in squeezenet.state_dict().items()}, path)
    return path
