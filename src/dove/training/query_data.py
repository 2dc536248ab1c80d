"""Training examples with queries, as the settings of a Q-DOVE training describe them."""

from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from dove.data.dataset import ImageDataset
from dove.data.mosaics import Mosaics
from dove.data.queries import AnnotatedImages
from dove.data.scenes import Scenes, load_cutouts
from dove.errors import UserError
from dove.query.tokenizer import QDove
from dove.training.query_config import QueryTrainConfig


def prepare_queries(config: QueryTrainConfig, dataset: ImageDataset, model: QDove) -> Dataset[Any]:
    """Make annotated images, mosaics, or cut-outs on photos, whose queries' words go into the model's settings."""
    settings = config.queries
    if settings.kind == "annotated":
        return AnnotatedImages(dataset, model.image_size)
    if settings.kind == "mosaics":
        return Mosaics(dataset, model.image_size, settings.mosaics, seed=config.run.seed)
    if not settings.stamps:
        raise UserError("scenes need --queries.stamps with the table that `dove data convert stamps` writes")
    seen = [cutout for cutout in load_cutouts(settings.stamps) if not cutout.held_out]
    scenes = Scenes(dataset, seen, model.image_size, settings.scenes, seed=config.run.seed)
    model.config = replace(model.config, query=replace(model.config.query, known=scenes.words))
    return scenes
