"""Picture of one photo at several lengths, beside the cosine transform's; its PNG holds the hash of the weights."""

from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data_dir

from dove.photos.picture import Cell, side_by_side
from dove.processor import ImageProcessor
from dove.registry import load_tokenizer

LENGTHS: tuple[int | str, ...] = (1, 4, 16, "auto")
KEY = "checkpoint-sha256"


def picture_hash(file: Path) -> str | None:
    """Read the hash of the weights that a picture was drawn with."""
    with Image.open(file) as picture:
        return picture.info.get(KEY)


def draw(file: Path, sha256: str) -> None:
    """Draw the photo and what 1, 4, 16 and `auto` tokens give, a row for each model."""
    processor = ImageProcessor(64)
    with Image.open(Path(data_dir) / "coffee.png") as photo:
        images = processor(photo.convert("RGB").crop((100, 0, 500, 400)))
    original = Cell(processor.to_pil(images)[0], "photo")
    picture = side_by_side([[original, *rebuild(name, images, processor)] for name in ("dove-tiny", "cosines")])
    info = PngInfo()
    info.add_text(KEY, sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, pnginfo=info, optimize=True)


def rebuild(name: str, images: torch.Tensor, processor: ImageProcessor) -> list[Cell]:
    """Rebuild an image of shape (1, 3, 64, 64) in [-1, 1] at each length."""
    model = load_tokenizer(name)
    cells = []
    for length in LENGTHS:
        tokens = model.encode(images, length)
        count = int(tokens.lengths[0])
        label = f"{name}, {'auto: ' if length == 'auto' else ''}{count} token{'s' if count > 1 else ''}"
        cells.append(Cell(processor.to_pil(model.decode(tokens))[0], label))
    return cells
