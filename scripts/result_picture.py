"""Pictures of photos by the shipped models; each JPEG holds the hash of the weights as its comment.

The photos come with scikit-image and scikit-learn: astronaut and rocket by NASA, coffee and cat in the public domain, temple
and flower under CC BY.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from skimage import data_dir
from sklearn import datasets

from dove.cli import main
from dove.photos.picture import Cell, side_by_side
from dove.processor import ImageProcessor
from dove.registry import load_tokenizer
from dove.runtime import save_outputs
from dove.tokens import format_token_count

SIDE = 64
SCIKIT_IMAGE, SCIKIT_LEARN = Path(data_dir), Path(datasets.__file__).parent / "images"
PHOTOS = {
    "coffee": (SCIKIT_IMAGE / "coffee.png", (100, 0, 500, 400)),
    "temple": (SCIKIT_LEARN / "china.jpg", (0, 0, 427, 427)),
    "astronaut": (SCIKIT_IMAGE / "astronaut.png", (60, 0, 400, 340)),
    "flower": (SCIKIT_LEARN / "flower.jpg", (100, 0, 527, 427)),
    "cat": (SCIKIT_IMAGE / "chelsea.png", (90, 0, 390, 300)),
    "rocket": (SCIKIT_IMAGE / "rocket.jpg", (100, 0, 527, 427)),
}
"""Files, and the squares (left, upper, right, lower) that are shown."""
CUT = 100
"""Side in pixels of the pieces of photos among which the simplest and the most complex are shown."""


def picture_hash(file: Path) -> str:
    """Read the hash of the weights that a picture was drawn with; empty where it has none."""
    with Image.open(file) as picture:
        return picture.info.get("comment", b"").decode("ascii", "replace")


def draw(file: Path, sha256: str) -> None:
    """Draw one of ``PICTURES``, by the file's name, and stamp it."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = PICTURES[file.name](Path(folder))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=92, subsampling=0, optimize=True, comment=sha256)
    save_outputs({file: buffer.getvalue()})


def square(name: str) -> Image.Image:
    """Cut the square of a photo."""
    file, box = PHOTOS[name]
    with Image.open(file) as photo:
        return photo.convert("RGB").crop(box)


def write_photos(folder: Path) -> Path:
    """Write all squares into a folder."""
    folder.mkdir()
    for name in PHOTOS:
        square(name).save(folder / f"{name}.png")
    return folder


def compare(names: Sequence[str], lengths: Sequence[int | str]) -> Image.Image:
    """Draw photos and what their tokens give, a row for dove-tiny and one for the cosine transform."""
    processor, rows = ImageProcessor(SIDE), []
    for name in names:
        images = processor(square(name))
        original = Cell(processor.to_pil(images)[0], "photo")
        rows += [[original, *rebuild(model, images, lengths)] for model in ("dove-tiny", "cosines")]
    return side_by_side(rows)


def rebuild(name: str, images: torch.Tensor, lengths: Sequence[int | str]) -> list[Cell]:
    """Rebuild an image of shape (1, 3, 64, 64) in [-1, 1] at each length."""
    model, processor = load_tokenizer(name), ImageProcessor(SIDE)
    cells = []
    for length in lengths:
        tokens = model.encode(images, length)
        count = int(tokens.lengths[0])
        label = f"{name}, auto: {count}" if length == "auto" else f"{name}, {format_token_count(count)}"
        cells.append(Cell(processor.to_pil(model.decode(tokens))[0], label))
    return cells


def run_dove(*arguments: str) -> None:
    """Run a command of dove, which must succeed."""
    if status := main([*arguments]):
        raise RuntimeError(f"dove {' '.join(arguments)} ended with status {status}")


def figure(number: int, made: str) -> Callable[[Path], Image.Image]:
    """Give the function that reruns a figure of the paper on the photos in a folder and reads the picture it made."""

    def run(folder: Path) -> Image.Image:
        photos = write_photos(folder / "photos")
        run_dove("paper", "run", f"figure{number}", "--data", str(photos), "--output", str(folder))
        with Image.open(folder / made) as picture:
            return picture.convert("RGB")

    return run


def examples(folder: Path) -> Image.Image:
    """Draw the simplest and the most complex pieces of the photos with their numbers of tokens."""
    photos = folder / "pieces"
    photos.mkdir()
    for name, (file, _) in PHOTOS.items():
        with Image.open(file) as photo:
            for top in range(0, photo.height - CUT + 1, CUT):
                for left in range(0, photo.width - CUT + 1, CUT):
                    piece = photo.convert("RGB").crop((left, top, left + CUT, top + CUT))
                    piece.save(photos / f"{name}-{top}-{left}.png")
    run_dove("evaluate", "lengths", "--data", str(photos), "--output", str(folder))
    with Image.open(folder / "lengths-examples.png") as picture:
        return picture.convert("RGB")


PICTURES: dict[str, Callable[[Path], Image.Image]] = {
    "lengths.jpg": lambda _: compare(["coffee"], (1, 4, 16, "auto")),
    "figure1.jpg": figure(1, "figure1.png"),
    "figure4.jpg": lambda _: compare(["temple", "astronaut"], (1, 2, 4, 8, 16, 32)),
    "figure6-examples.jpg": examples,
    "figure8.jpg": figure(8, "figure8/pca.png"),
}
"""Functions that draw each picture of ``docs/pictures``, given an empty folder to work in."""
