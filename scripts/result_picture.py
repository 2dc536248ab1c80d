"""Picture of one photo at several lengths, beside the cosine transform's; its PNG holds the hash of the weights."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from skimage import data_dir

from dove.processor import ImageProcessor
from dove.registry import load_tokenizer

LENGTHS: tuple[int | str, ...] = (1, 4, 16, "auto")
ZOOM = 3
MARGIN = 8
HEADER = 26
SIDEBAR = 96
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
    rows = [(name, rebuild(name, images)) for name in ("dove-tiny", "cosines")]
    side = images.shape[-1] * ZOOM
    width = SIDEBAR + (1 + len(LENGTHS)) * (side + MARGIN)
    canvas = Image.new("RGB", (width, len(rows) * (side + HEADER + MARGIN) + MARGIN), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for line, (name, cells) in enumerate(rows):
        top = MARGIN + line * (side + HEADER + MARGIN)
        pen.text((MARGIN, top + HEADER + side / 2), name, fill="black" if line == 0 else "dimgray", font=font)
        for column, (label, pixels) in enumerate([("photo", images), *cells]):
            left = SIDEBAR + column * (side + MARGIN)
            pen.text((left + 2, top + 4), label, fill="black", font=font)
            cell = processor.to_pil(pixels)[0].resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(cell, (left, top + HEADER))
    info = PngInfo()
    info.add_text(KEY, sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file, pnginfo=info, optimize=True)


def rebuild(name: str, images: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Rebuild images of shape (1, 3, 64, 64) in [-1, 1] at each length, under a label."""
    model = load_tokenizer(name)
    cells = []
    for length in LENGTHS:
        tokens = model.encode(images, length)
        count = int(tokens.lengths[0])
        label = f"auto: {count} tokens" if length == "auto" else f"{count} token{'s' if count > 1 else ''}"
        cells.append((label, model.decode(tokens)))
    return cells
