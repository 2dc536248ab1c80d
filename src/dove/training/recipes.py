"""Table of the model and the objective of every kind of settings, in which a new training is entered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
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
        examples: what batches are made of, from the settings, the training images and the model; None for augmented images.
    """

    initialise: Callable[[Any, initialisation.Sample], nn.Module]
    objective: Callable[[Any, Any], Objective[Any]]
    examples: Callable[[Any, ImageDataset, Any], Dataset[Any]] | None = None


def image_size(config: Any) -> int:
    """Find the side of the images in pixels, in the settings of a model or of the VQGAN in it."""
    model = config.model
    return int(model.image_size if hasattr(model, "image_size") else model.vqgan.image_size)


RECIPES: dict[type[TrainConfig], Recipe] = {
    VQGANTrainConfig: Recipe(lambda config, _sample: VQGAN(config.model), VQGANObjective),
    DoveTrainConfig: Recipe(initialisation.initialise_dove, DoveObjective),
    PrefixTrainConfig: Recipe(initialisation.initialise_dove, PrefixObjective),
    QDoveTrainConfig: Recipe(initialisation.initialise_dove, QDoveObjective, prepare_queries),
    QueryPrefixTrainConfig: Recipe(initialisation.initialise_dove, QueryPrefixObjective, prepare_queries),
    MaskgitVQGANTrainConfig: Recipe(initialisation.initialise_maskgit_vqgan, QuantizedObjective),
    TiTokTrainConfig: Recipe(lambda config, _sample: make_titok(config.model), QuantizedObjective),
    TiTokCodesTrainConfig: Recipe(initialisation.initialise_titok_codes, TiTokCodesObjective),
    TiTokPixelsTrainConfig: Recipe(initialisation.initialise_titok_pixels, TiTokPixelsObjective),
    ALITCodesTrainConfig: Recipe(initialisation.initialise_alit_codes, ALITCodesObjective),
    ALITPixelsTrainConfig: Recipe(initialisation.initialise_alit_pixels, ALITPixelsObjective),
}  # Every training by the type of its settings
