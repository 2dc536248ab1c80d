"""Scenes with several named objects, made of photos that show one each."""

from functools import partial

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dove.data.config import MosaicConfig
from dove.data.dataset import ImageDataset
from dove.data.query_batch import Ask, Box, Place, QueryBatch, QueryExample, free_place, scene_draws
from dove.errors import UserError
from dove.processor import pil_to_tensor

TEMPLATES = (
    "{name}",
    "a {name}",
    "the {name}",
    "where is the {name}?",
    "show me the {name}",
    "a photo of a {name}",
    "what does the {name} look like?",
    "what is the {name} doing?",
    "what colour is the {name}?",
    "is there a {name} in the image?",
    "find the {name}",
    "the {name} in the picture",
)
SYNONYMS = {"automobile": ("car",), "airplane": ("plane",), "ship": ("boat",), "truck": ("lorry",)}


class Mosaics(Dataset[QueryExample]):
    """Endless scenes, indexed by the pairs ``(epoch, index)`` that a ``ResumableSampler`` yields.

    Args:
        photos: pictures of one object each, with the object's ``name`` in the metadata.
    """

    collate = staticmethod(QueryBatch.collate)

    def __init__(
        self,
        photos: ImageDataset,
        image_size: int,
        config: MosaicConfig | None = None,
        *,
        seed: int = 0,
        evaluation: bool = False,
    ) -> None:
        self.photos, self.image_size = photos, image_size
        self.draws = partial(scene_draws, seed, evaluation=evaluation)
        self.config = config or MosaicConfig()
        self._photos: dict[int, Image.Image] = {}
        self.by_name: dict[str, list[int]] = {}
        for index in range(len(photos)):
            raw = photos.raw(index)
            if not (name := raw.metadata.get("name")):
                raise UserError(f"{raw.name} has no name; mosaics need a column or folder that names the object")
            self.by_name.setdefault(str(name), []).append(index)
        self.names = sorted(self.by_name)
        if len(self.names) < 2:
            raise UserError(f"mosaics need photos of at least two names; these have {', '.join(self.names)} alone")

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, sample: tuple[int, int]) -> QueryExample:
        rng = self.draws(sample)
        placements = self._grid() if rng.random() < self.config.grid_share else self._scattered(rng)
        placed = dict(zip(rng.permutation(self.names).tolist(), placements, strict=False))
        scene = _background(rng, self.image_size)
        for name, (left, upper, *sides) in placed.items():
            photo = self._photo(self.by_name[name][int(rng.integers(len(self.by_name[name])))])
            photo = _jitter(rng, photo) if self.config.augment else photo
            scene.paste(photo.resize(sides, Image.Resampling.BICUBIC), (left, upper))
        boxes = {
            name: (float(x), float(y), float(width), float(height)) for name, (x, y, width, height) in placed.items()
        }
        return QueryExample(pil_to_tensor(scene), tuple(self._asks(rng, boxes)))

    def _grid(self) -> list[Place]:
        half = self.image_size // 2
        return [(left, upper, half, half) for upper in (0, half) for left in (0, half)]

    def _scattered(self, rng: np.random.Generator) -> list[Place]:
        """Place one to three squares anywhere without overlap; a square that finds no place is left out."""
        low, high = (round(self.image_size * share) for share in self.config.sides)
        placed: list[Place] = []
        for _ in range(int(rng.integers(1, 4))):
            place = free_place(rng, self.image_size, lambda: (int(rng.integers(low, high + 1)),) * 2, placed, 8)
            placed += [place] if place else []
        return placed

    def _photo(self, index: int) -> Image.Image:
        """Decode a photo and keep it: scenes take several at a time, and such photos are small."""
        if index not in self._photos:
            image = self.photos.raw(index).read().image
            image.thumbnail((self.image_size, self.image_size), Image.Resampling.BICUBIC)
            self._photos[index] = image
        return self._photos[index]

    def _asks(self, rng: np.random.Generator, boxes: dict[str, Box]) -> list[Ask]:
        """Draw a query for every object in random order and, in some scenes, one for an object that is absent."""
        asks = [Ask(self._words(rng, name), (boxes[name],)) for name in rng.permutation(list(boxes)).tolist()]
        missing = [name for name in self.names if name not in boxes]
        if missing and rng.random() < self.config.absent_share:
            asks.insert(int(rng.integers(len(asks) + 1)), Ask(self._words(rng, str(rng.choice(missing))), ()))
        return asks

    def _words(self, rng: np.random.Generator, name: str) -> str:
        spoken = (name, *SYNONYMS.get(name, ()))
        return TEMPLATES[rng.integers(len(TEMPLATES))].format(name=spoken[rng.integers(len(spoken))])


def _jitter(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Crop and mirror a photo at random."""
    width, height = image.size
    keep = rng.uniform(0.75, 1.0)
    left, upper = rng.random() * (1 - keep) * width, rng.random() * (1 - keep) * height
    image = image.resize(
        image.size, Image.Resampling.BICUBIC, box=(left, upper, left + keep * width, upper + keep * height)
    )
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a smooth field of random colours."""
    side = int(rng.integers(1, 6))
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
