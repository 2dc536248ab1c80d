"""Training examples with queries, as the settings of a Q-DOVE training describe them."""

from dataclasses import replace

from dove.data.dataset import ImageDataset
from dove.data.mosaics import Mosaics
from dove.data.queries import AnnotatedImages
from dove.data.scenes import Scenes, load_cutouts
from dove.errors import UserError
from dove.query.tokenizer import QDove
from dove.training.query_config import QueryTrainConfig

Examples = AnnotatedImages | Mosaics | Scenes


def query_examples(config: QueryTrainConfig, dataset: ImageDataset, image_size: int) -> Examples:
    """Annotated images, mosaics of photos of single objects, or cut-outs on photos."""
    settings = config.queries
    if settings.kind == "annotated":
        return AnnotatedImages(dataset, image_size)
    if settings.kind == "mosaics":
        return Mosaics(dataset, image_size, settings.mosaics, seed=config.run.seed)
    if not settings.stamps:
        raise UserError("scenes need --queries.stamps with the table that `dove data convert stamps` writes")
    seen = [cutout for cutout in load_cutouts(settings.stamps) if not cutout.held_out]
    return Scenes(dataset, seen, image_size, settings.scenes, seed=config.run.seed)


def prepare_queries(config: QueryTrainConfig, dataset: ImageDataset, model: QDove) -> Examples:
    """Make the examples, and write the words of scenes' queries into the model's settings."""
    examples = query_examples(config, dataset, model.image_size)
    if isinstance(examples, Scenes):
        model.config = replace(model.config, query=replace(model.config.query, known=examples.words))
    return examples
