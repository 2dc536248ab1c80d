"""Table of the model and the objective of every kind of settings, in which a new training is entered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from dove.baselines.titok import make_titok
from dove.data.dataset import ImageDataset
from dove.models.vqgan import VQGAN
from dove.training import initialisation
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
    TiTokTrainConfig,
    TwoStageTrainConfig,
)
from dove.training.baseline_objectives import (
    ALITCodesObjective,
    ALITPixelsObjective,
    QuantizedObjective,
    TiTokCodesObjective,
    TiTokPixelsObjective,
)
from dove.training.config import DoveTrainConfig, PrefixTrainConfig, TrainConfig, VQGANTrainConfig
from dove.training.objectives import DoveObjective, Objective, PrefixObjective, VQGANObjective
from dove.training.query_config import QDoveTrainConfig, QueryPrefixTrainConfig
from dove.training.query_data import prepare_queries
from dove.training.query_objective import QDoveObjective, QueryPrefixObjective


@dataclass(frozen=True)
class Recipe:
    """Functions that make a training from its settings.

    Attributes:
        initialise: the model with its first weights, from the settings and a sample of the training images.
        objective: what is minimised, from the settings and that model.
        image_size: side of the images in pixels, from the settings.
        examples: what batches are made of, from the settings, the training images and the model; None for augmented images.
    """

    initialise: Callable[[Any, initialisation.Sample], nn.Module]
    objective: Callable[[Any, Any], Objective[Any]]
    image_size: Callable[[Any], int]
    examples: Callable[[Any, ImageDataset, Any], Dataset[Any]] | None = None


def _own(config: Any) -> int:
    return int(config.model.image_size)


def _in_vqgan(config: Any) -> int:
    return int(config.model.vqgan.image_size)


def _titok_codes(config: TwoStageTrainConfig, model: Any) -> Objective[Tensor]:
    return TiTokCodesObjective(config, model, initialisation.load_teacher(config.vqgan_checkpoint, model.config.vqgan))


RECIPES: dict[type[TrainConfig], Recipe] = {
    VQGANTrainConfig: Recipe(lambda config, _sample: VQGAN(config.model), VQGANObjective, _own),
    DoveTrainConfig: Recipe(initialisation.initialise_dove, DoveObjective, _in_vqgan),
    PrefixTrainConfig: Recipe(initialisation.initialise_dove, PrefixObjective, _in_vqgan),
    QDoveTrainConfig: Recipe(initialisation.initialise_dove, QDoveObjective, _in_vqgan, prepare_queries),
    QueryPrefixTrainConfig: Recipe(initialisation.initialise_dove, QueryPrefixObjective, _in_vqgan, prepare_queries),
    MaskgitVQGANTrainConfig: Recipe(initialisation.initialise_maskgit_vqgan, QuantizedObjective, _own),
    TiTokTrainConfig: Recipe(lambda config, _sample: make_titok(config.model), QuantizedObjective, _own),
    TiTokCodesTrainConfig: Recipe(initialisation.initialise_titok_codes, _titok_codes, _own),
    TiTokPixelsTrainConfig: Recipe(initialisation.initialise_titok_pixels, TiTokPixelsObjective, _own),
    ALITCodesTrainConfig: Recipe(initialisation.initialise_alit_codes, ALITCodesObjective, _in_vqgan),
    ALITPixelsTrainConfig: Recipe(initialisation.initialise_alit_pixels, ALITPixelsObjective, _in_vqgan),
}  # Every training by the type of its settings
