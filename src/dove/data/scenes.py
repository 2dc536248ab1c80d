"""Scenes of captioned cut-outs on photos: every query is a caption or a part of it, its box holds the cut-out."""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dove.data.config import SceneConfig
from dove.data.dataset import ImageDataset
from dove.data.images import open_images
from dove.data.query_batch import Ask, QueryBatch, QueryExample
from dove.errors import UserError
from dove.processor import central_square, pil_to_tensor, resize_box
from dove.query.words import split_words

Place = tuple[int, int, int, int]  # x, y, width, height of a cut-out in pixels of its scene
COLOURS = frozenset("red yellow green blue purple pink brown black white silver golden gray grey".split())
MOST_WORDS = 6  # Words of a caption that a query takes at most
HELD_OUT_EVERY = 8  # Number of captions of which one is kept apart from training
SCENES_PER_EPOCH = 10_000
ATTEMPTS = 30  # Draws of a place before a cut-out is left out of its scene


@dataclass(frozen=True, eq=False)
class CutOut:
    """A picture of a single thing, cut at the edges of its visible part.

    Attributes:
        image: RGBA.
        words: caption in lower case, without article and punctuation.
    """

    image: Image.Image
    words: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """True for one caption in ``HELD_OUT_EVERY``, by a hash of its words, which no training draws."""
        return hashlib.sha256(" ".join(self.words).encode()).digest()[0] % HELD_OUT_EVERY == 0


def caption_words(caption: str) -> tuple[str, ...]:
    """Split a caption's first sentence into at most ``MOST_WORDS`` words without its article."""
    words = split_words(re.split(r"[.!?]", caption.strip(), maxsplit=1)[0])
    return tuple(words[words[:1] in (["a"], ["an"], ["the"]) :][:MOST_WORDS])


def load_cutouts(source: str) -> list[CutOut]:
    """Load captioned cut-outs from a table that ``dove data convert stamps`` wrote."""
    table, found = open_images(source), []
    for index in range(len(table)):
        raw = table.raw(index)
        caption = raw.metadata.get("caption")
        words = caption_words(caption) if isinstance(caption, str) else ()
        if not words or not isinstance(raw.source, bytes):
            raise UserError(f"{raw.name} has no caption or picture; pass a table that `dove data convert stamps` wrote")
        image = read_cutout(io.BytesIO(raw.source), raw.name)
        found.append(CutOut(image.crop(image.getchannel("A").getbbox()), words))
    return found


def read_cutout(source: Path | io.BytesIO, name: str) -> Image.Image:
    """Read a picture as RGBA; one that cannot be read or shows nothing is refused by its name."""
    try:
        with Image.open(source) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: holds no picture that can be read; leave it out") from error
    if picture.getchannel("A").getbbox() is None:
        raise UserError(f"{name} is transparent everywhere; leave it out")
    return picture


def scene_draws(seed: int, sample: tuple[int, int], *, evaluation: bool) -> np.random.Generator:
    """Make the random numbers of a scene; those of evaluation follow no training, whatever its seed."""
    epoch, index = sample
    return np.random.default_rng([seed, epoch, index + 1, *([1] if evaluation else [])])


class Scenes(Dataset[QueryExample]):
    """Endless scenes, indexed by the pairs ``(epoch, index)`` that a ``ResumableSampler`` yields."""

    collate = staticmethod(QueryBatch.collate)

    def __init__(
        self,
        photos: ImageDataset,
        cutouts: Sequence[CutOut],
        image_size: int,
        config: SceneConfig | None = None,
        *,
        seed: int = 0,
        evaluation: bool = False,
    ) -> None:
        self.photos, self.cutouts, self.image_size = photos, cutouts, image_size
        self.draws = partial(scene_draws, seed, evaluation=evaluation)
        self.config = config or SceneConfig()
        if len({frozenset(cutout.words) for cutout in cutouts}) < 2:
            raise UserError(
                f"scenes need cut-outs whose captions differ in a word; these {len(cutouts)} have none that do"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """Words that its queries have, sorted."""
        texts = [text for cutout in self.cutouts for text in phrases(cutout.words, [])]
        return tuple(sorted({word for text in texts for word in split_words(text)}))

    def __len__(self) -> int:
        return SCENES_PER_EPOCH

    def __getitem__(self, sample: tuple[int, int]) -> QueryExample:
        rng = self.draws(sample)
        photo = self.photos.raw(int(rng.integers(len(self.photos)))).read().image
        scene = resize_box(photo, central_square(*photo.size), self.image_size)
        asks: list[Ask] = []
        placed = self._placed(rng, sample[0])
        others = [cutout.words for cutout, _ in placed]
        for number, (cutout, place) in enumerate(placed):
            if words := phrases(cutout.words, others[:number] + others[number + 1 :]):
                left, upper, width, height = map(float, place)
                asks.append(Ask(words[rng.integers(len(words))], ((left, upper, width, height),)))
        for cutout, (left, upper, *sides) in placed:
            thing = cutout.image.resize(sides, Image.Resampling.BOX)
            scene.paste(thing, (left, upper), thing)
        return QueryExample(pil_to_tensor(scene), tuple(asks))

    def _placed(self, rng: np.random.Generator, epoch: int) -> list[tuple[CutOut, Place]]:
        """Draw at least two cut-outs of different captions with places that do not overlap."""
        curriculum = self.config.curriculum
        progress = min(epoch * SCENES_PER_EPOCH / curriculum, 1.0) if curriculum else 1.0
        count = int(rng.integers(2, 2 + round(progress * (self.config.things - 2)) + 1))
        small, large = self.config.sides
        least = large + (small - large) * progress
        while True:
            placed: list[tuple[CutOut, Place]] = []
            for number in rng.permutation(len(self.cutouts))[:count].tolist():
                cutout = self.cutouts[number]
                if all(set(cutout.words) != set(other.words) for other, _ in placed):
                    place = self._place(rng, cutout, (least, large), [taken for _, taken in placed])
                    placed += [(cutout, place)] if place else []
            if len(placed) >= 2:
                return placed

    def _place(
        self, rng: np.random.Generator, cutout: CutOut, sides: tuple[float, float], taken: list[Place]
    ) -> Place | None:
        """Draw a size and a place that overlaps none of those taken; None if no attempt finds one."""
        for _ in range(ATTEMPTS):
            scale = rng.uniform(*sides) * self.image_size / max(cutout.image.size)
            width, height = (max(round(side * scale), 2) for side in cutout.image.size)
            left, upper = (int(rng.integers(0, self.image_size - side + 1)) for side in (width, height))
            if not any(
                left < x + w and x < left + width and upper < y + h and y < upper + height for x, y, w, h in taken
            ):
                return left, upper, width, height
        return None


def phrases(words: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> list[str]:
    """List the queries that mean a thing among others: its caption, its last word, its colour.

    Args:
        words: of the thing's caption.
        others: words of the other things' captions; a query that fits one of them is left out.
    """
    name = " ".join(words)
    found = [(words, text) for text in (name, f"the {name}", f"where is the {name}?")]
    if 1 < len(words) <= 3:
        found.append((words[-1:], f"the {words[-1]}"))
    found += [((word,), f"something {word}") for word in words[:-1] if word in COLOURS]
    return [text for key, text in found if not any(set(key) <= set(other) for other in others)]
