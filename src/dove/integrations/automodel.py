"""DOVE behind the Auto classes of transformers. Importing this module registers it.

AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import ModelOutput

from dove.checkpoint import CONFIG_FILE, TYPE_KEY, model_type, read_config, read_model_type, resolve_checkpoint
from dove.config import DoveConfig
from dove.processor import ImageProcessor
from dove.query.config import QDoveConfig
from dove.query.tokenizer import Query, encode_asked
from dove.tokenizer import Dove

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
"""Options of transformers' loaders that are passed on to the hub."""


class DoveAutoConfig(PretrainedConfig):
    """Config of transformers for a config.json of this package; ``settings`` holds all of it but the type."""

    model_type = model_type(DoveConfig)
    settings: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """Make the config; with ``return_unused_kwargs=True`` return it with the other arguments."""
        unused = kwargs.pop("return_unused_kwargs", False)
        config = cls(settings={key: value for key, value in config_dict.items() if key != TYPE_KEY})
        return (config, kwargs) if unused else config


class QDoveAutoConfig(DoveAutoConfig):
    """Config of transformers for a Q-DOVE."""

    model_type = model_type(QDoveConfig)


@dataclass
class TokensOutput(ModelOutput):
    """Tokens under the names that transformers uses."""

    last_hidden_state: Float[Tensor, "B K D"] | None = None  # The tokens, zero behind each image's length
    attention_mask: Bool[Tensor, "B K"] | None = None  # True where a token is kept


class DoveModel(nn.Module):
    """Tokenizer with the call of a transformers encoder. ``dove`` is the tokenizer itself."""

    config_class = DoveAutoConfig

    def __init__(self, dove: Dove):
        super().__init__()
        self.dove = dove
        self.config = dove.config

    def forward(
        self, pixel_values: Float[Tensor, "B 3 S S"], num_tokens: int | str = "auto", query: Query = None
    ) -> TokensOutput:
        """Encode images in [-1, 1] at the model's size; further arguments and errors as in ``encode``."""
        (tokens,) = encode_asked(self.dove, pixel_values, [num_tokens], query)
        return TokensOutput(last_hidden_state=tokens.values, attention_mask=tokens.mask)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *_: Any, **options: Any) -> "DoveModel":
        """Load a checkpoint; options other than those for the hub are transformers' own and unused."""
        dove = Dove.from_pretrained(pretrained_model_name_or_path, **_hub_options(options))
        return cls(dove).eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write a checkpoint folder, as ``Dove.save_pretrained`` does."""
        self.dove.save_pretrained(save_directory, **options)


class QDoveModel(DoveModel):
    """Q-DOVE with the call of a transformers encoder."""

    config_class = QDoveAutoConfig


class DoveImageProcessor(BaseImageProcessor):
    """``ImageProcessor`` with the call and the result of transformers' image processors."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, image_size: int = 64, **_: Any):
        super().__init__()
        self.image_size = image_size

    def __call__(self, images: Any, return_tensors: str | None = "pt", **_: Any) -> BatchFeature:
        """Convert what ``ImageProcessor`` takes to ``pixel_values`` (B, 3, S, S) in [-1, 1]: "pt", "np", or None for a list."""
        pixels = ImageProcessor(self.image_size)(images)
        values: Any = list(pixels) if return_tensors is None else pixels
        return BatchFeature({"pixel_values": values.numpy() if return_tensors == "np" else values})

    preprocess = __call__

    def to_pil(self, images: Float[Tensor, "*B 3 H W"]) -> list[Any]:
        """Convert model output, in [-1, 1], to pictures."""
        return ImageProcessor(self.image_size).to_pil(torch.as_tensor(images))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "DoveImageProcessor":
        """Make the image processor of the model in a checkpoint."""
        folder = resolve_checkpoint(pretrained_model_name_or_path, **_hub_options(options))
        kind = QDoveConfig if read_model_type(folder) == model_type(QDoveConfig) else DoveConfig
        return cls(image_size=read_config(folder / CONFIG_FILE, kind).vqgan.image_size)


def _hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}


for config_class, model_class in ((DoveAutoConfig, DoveModel), (QDoveAutoConfig, QDoveModel)):
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
    AutoImageProcessor.register(config_class, image_processor_classes={"pil": DoveImageProcessor}, exist_ok=True)
