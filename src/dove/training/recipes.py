"""Table of the model and the objective of every kind of settings, in which a new training is entered."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from dove.baselines.titok import make_titok
from dove.data.dataset import ImageDataset
from dove.data.queries import AnnotatedImages
from dove.data.scenes import Scenes, load_cutouts
from dove.errors import UserError
from dove.models.vqgan import VQGAN
from dove.query.tokenizer import QDove
from dove.training import initialisation
from dove.training.baseline_objectives import (
    ALITCodesObjective,
    ALITPixelsObjective,
    QuantizedObjective,
    TiTokCodesObjective,
    TiTokPixelsObjective,
)
from dove.training.config import TrainConfig
from dove.training.objectives import DoveObjective, Objective, PrefixObjective, VQGANObjective
from dove.training.presets import RECIPES as SETTINGS
from dove.training.query_config import QueryTrainConfig
from dove.training.query_objective import QDoveObjective, QueryPrefixObjective


@dataclass(frozen=True)
class Recipe:
    """Functions that make a training from its settings."""

    initialise: Callable[[Any, initialisation.Sample], nn.Module]
    """The model with its first weights, from the settings and a sample of the training images."""
    objective: Callable[[Any, Any], Objective[Any]]
    """The loss to minimise, from the settings and that model."""
    examples: Callable[[Any, ImageDataset, Any], Dataset[Any]] | None = None
    """The examples of batches, from the settings, the training images and the model; None for augmented images."""


def image_size(config: Any) -> int:
    """Find the side of the images in pixels, in the settings of a model or of the VQGAN in it."""
    model = config.model
    return int(model.image_size if hasattr(model, "image_size") else model.vqgan.image_size)


def prepare_queries(config: QueryTrainConfig, dataset: ImageDataset, model: QDove) -> Dataset[Any]:
    """Make annotated images, or cut-outs on photos, whose queries' words go into the model's settings."""
    settings = config.queries
    if settings.kind == "annotated":
        return AnnotatedImages(dataset, model.image_size)
    if not settings.stamps:
        raise UserError("scenes need --queries.stamps with the table that `dove data convert stamps` writes")
    seen = [cutout for cutout in load_cutouts(settings.stamps) if not cutout.held_out]
    scenes = Scenes(dataset, seen, model.image_size, settings.scenes, seed=config.run.seed)
    model.config = replace(model.config, query=replace(model.config.query, known=scenes.words))
    return scenes


_BY_NAME = {
    "vqgan": Recipe(lambda config, _sample: VQGAN(config.model), VQGANObjective),
    "dove": Recipe(initialisation.initialise_dove, DoveObjective),
    "prefix": Recipe(initialisation.initialise_dove, PrefixObjective),
    "qdove": Recipe(initialisation.initialise_dove, QDoveObjective, prepare_queries),
    "query-prefix": Recipe(initialisation.initialise_dove, QueryPrefixObjective, prepare_queries),
    "maskgit-vqgan": Recipe(initialisation.initialise_maskgit_vqgan, QuantizedObjective),
    "titok": Recipe(lambda config, _sample: make_titok(config.model), QuantizedObjective),
    "titok-codes": Recipe(initialisation.initialise_titok_codes, TiTokCodesObjective),
    "titok-pixels": Recipe(initialisation.initialise_pixels, TiTokPixelsObjective),
    "alit-codes": Recipe(initialisation.initialise_alit_codes, ALITCodesObjective),
    "alit-pixels": Recipe(initialisation.initialise_pixels, ALITPixelsObjective),
}
RECIPES: dict[type[TrainConfig], Recipe] = {SETTINGS[name]: recipe for name, recipe in _BY_NAME.items()}
"""Every training by the type of its settings."""
