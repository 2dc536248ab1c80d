"""Training examples with queries, as the settings of a Q-DOVE training describe them."""

from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.mosaics import Mosaics
from dove.data.queries import AnnotatedImages
from dove.training.query_config import QDoveTrainConfig, QueryPrefixTrainConfig


def query_examples(
    config: QDoveTrainConfig | QueryPrefixTrainConfig, dataset: ImageDataset, image_size: int
) -> AnnotatedImages | Mosaics:
    """Annotated images, or mosaics of photos of single objects.

    Raises:
        UserError: if the data have no queries or names.
    """
    settings = config.queries
    if settings.kind == "annotated":
        return AnnotatedImages(dataset, image_size)
    whole = open_images(settings.whole) if settings.whole else None
    return Mosaics(dataset, image_size, settings.mosaics, seed=config.run.seed, whole=whole)
