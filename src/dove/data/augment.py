"""Augmented training pictures. Pixels follow from (seed, epoch, index) alone, in any process and order."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from dove.data.config import AugmentConfig
from dove.data.dataset import ImageDataset, Record
from dove.errors import UserError
from dove.processor import central_square, pil_to_tensor, resize_box

MAX_UNREADABLE_RUN = 100
"""Number of consecutive unreadable pictures that stops a training, because then the source itself is broken."""

_logger = logging.getLogger(__name__)


def augment(
    image: Image.Image, image_size: int, config: AugmentConfig, rng: np.random.Generator
) -> Float[Tensor, "3 S S"]:
    """Crop and mirror a picture and convert it to grey, each at random; float32 in [-1, 1].

    Every picture draws the same number of random values, so that one setting does not move the draws of another.
    """
    crop, area, ratio, left, upper, flip, grey = rng.random(7).tolist()
    if crop < config.crop_probability:
        box = _crop_box(image.size, config, (area, ratio, left, upper))
    else:
        box = central_square(*image.size)
    image = resize_box(image, box, image_size)
    if config.flip and flip < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if grey < config.grayscale_probability:
        image = image.convert("L").convert("RGB")
    return pil_to_tensor(image)


def _crop_box(
    size: tuple[int, int], config: AugmentConfig, draws: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Draw a crop of nearly the largest square's size, anywhere in the picture: left, upper, right, lower, in pixels."""
    area, ratio, left, upper = draws
    side = min(size) * (config.crop_scale + (1 - config.crop_scale) * area) ** 0.5
    stretch = config.crop_ratio ** (ratio - 0.5)  # square root of a ratio that is log-uniform around 1
    width, height = min(side * stretch, size[0]), min(side / stretch, size[1])
    x, y = left * (size[0] - width), upper * (size[1] - height)
    return x, y, x + width, y + height


class TrainingImages(Dataset[Tensor]):
    """Augmented pictures, indexed by the pairs ``(epoch, index)`` that a ``ResumableSampler`` yields.

    Where the source skips unreadable pictures, one from anywhere takes the place and a warning is logged.
    """

    def __init__(
        self, dataset: ImageDataset, image_size: int, config: AugmentConfig | None = None, *, seed: int = 0
    ) -> None:
        self.dataset, self.image_size = dataset, image_size
        self.config, self.seed = config or AugmentConfig(), seed

    def __len__(self) -> int:
        return len(self.dataset)

    def key(self, index: int) -> str:
        """Look up the name of a record."""
        return self.dataset.raw(index).key

    def __getitem__(self, sample: tuple[int, int]) -> Float[Tensor, "3 S S"]:
        """Read and augment one picture; float32 in [-1, 1]."""
        epoch, index = sample
        # One more than the index: epochs' permutations are drawn from [seed, epoch, 0].
        rng = np.random.default_rng([self.seed, epoch, index + 1])
        return augment(self._readable(index).image, self.image_size, self.config, rng)

    def _readable(self, index: int) -> Record:
        """Read a picture, or one from anywhere in its place: a damaged shard spoils all neighbours."""
        rng = np.random.default_rng([self.seed, index])
        position, reason = index, ""
        for _ in range(MAX_UNREADABLE_RUN):
            record = self.dataset[position]
            if isinstance(record, Record):
                return record
            reason = record.reason
            _logger.warning("left out %s", reason)
            position = int(rng.integers(len(self.dataset)))
        raise UserError(
            f"training stops after {MAX_UNREADABLE_RUN} unreadable images in a row, the last one: {reason}; "
            "check the training data"
        )


class ResumableSampler(Sampler[tuple[int, int]]):
    """Endless ``(epoch, index)`` pairs, in a new permutation every epoch, divided among the ranks.

    The permutations stand one after the other and their entries go to the ranks in rotation: an epoch gives every index
    exactly once over all ranks, and all ranks have had equally many after each rotation. Everything follows from the
    position, so that a resumed training sees the images that it would have seen, also with another number of ranks and
    the same number of images per step.

    Args:
        rank: index of this process, 0 to ``world_size - 1``.
        start: number of pairs that this rank has had, ``steps * batch_size``.
        blocks: boundaries of the runs of records that are read together, from 0 to ``num_samples``; None for one run.
        window: blocks that are shuffled together, in a random order of the blocks; 0 for all.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        blocks: Sequence[int] | None = None,
        window: int = 0,
    ) -> None:
        if num_samples < 1:
            raise UserError("there are no images to train on")
        self.num_samples, self.seed, self.rank, self.world_size, self.start = num_samples, seed, rank, world_size, start
        self.blocks, self.window = np.asarray([0, num_samples] if blocks is None else blocks), window

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, offset = divmod(self.start * self.world_size + self.rank, self.num_samples)
        while True:
            own = self._permutation(np.random.default_rng([self.seed, epoch, 0]))[offset :: self.world_size]
            for index in own:
                yield epoch, int(index)
            passed, offset = divmod(offset + self.world_size * len(own), self.num_samples)
            epoch += passed

    def _permutation(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if not self.window:
            return rng.permutation(self.num_samples)
        order = rng.permutation(len(self.blocks) - 1)
        windows = [
            np.concatenate([np.arange(self.blocks[block], self.blocks[block + 1]) for block in some])
            for some in np.split(order, range(self.window, len(order), self.window))
        ]
        return np.concatenate([rng.permutation(together) for together in windows])
