"""Models small enough to build anew in every test."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_0

from dove.config import BackboneConfig, DoveConfig, VQGANConfig
from dove.query.config import QDoveConfig, QueryConfig
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove
from dove.vlm.config import LanguageModelConfig, VLMConfig

if TYPE_CHECKING:
    from dove.vlm.model import VisionLanguageModel

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
def tiny_qdove(tiny_dove: Dove) -> QDove:
    """That tokenizer with an untrained embedding for queries of up to 24 words."""
    torch.manual_seed(0)
    query = QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=24)
    model = QDove(QDoveConfig(**vars(tiny_dove.config), query=query))
    model.load_state_dict(tiny_dove.state_dict(), strict=False)
    return model.eval()


@pytest.fixture
def tiny_language_model() -> LanguageModelConfig:
    """A few thousand parameters from random weights."""
    return LanguageModelConfig(
        vocab_size=270, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, max_positions=256
    )


@pytest.fixture
def tiny_vlm(tiny_dove: Dove, tiny_language_model: LanguageModelConfig) -> "VisionLanguageModel":
    """That language model, untrained, behind the untrained tokenizer, which it calls "tiny"."""
    from dove.vlm.checkpoint import small_language_model
    from dove.vlm.model import VisionLanguageModel
    from dove.vlm.text import train_text_tokenizer

    torch.manual_seed(0)
    words = train_text_tokenizer(["what color is it?", "red", "blue"], tiny_language_model.vocab_size)
    config = VLMConfig(
        tokenizer="tiny",
        tokenizer_sha256=None,
        token_dim=tiny_dove.config.token_dim,
        max_tokens=tiny_dove.max_tokens,
        image_size=tiny_dove.image_size,
        language_model=None,
    )
    return VisionLanguageModel(config, small_language_model(tiny_language_model, words), words, tiny_dove).eval()


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
