"""Paints a landscape with smooth and busy parts, for trying the tokenizer on a picture of any size.

python examples/scene.py scenes --width 1536 --height 1024 --tile 128
    python examples/scene.py scene.png --width 768 --height 512
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Plane = NDArray[np.float64]


def fractal(rng: np.random.Generator, height: int, width: int, coarsest: int, persistence: float) -> Plane:
    """Noise of all sizes from ``coarsest`` pixels down, in [0, 1]; the finer is ``persistence`` times as strong."""
    total, strength, cell = np.zeros((height, width)), 1.0, coarsest
    while cell >= 2:
        small = rng.random((height // cell + 2, width // cell + 2)).astype(np.float32)
        layer = Image.fromarray(small, mode="F").resize((width, height), Image.Resampling.BICUBIC)
        total, strength, cell = total + strength * np.asarray(layer), strength * persistence, cell // 2
    total -= total.min()
    return total / total.max()


def blend(colours: list[tuple[int, int, int]], share: Plane) -> Plane:
    """A ramp through colours, (H, W, 3), by shares from 0 to 1."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(share, stops, channel) for channel in zip(*colours, strict=True)], -1)


def ridge(rng: np.random.Generator, width: int, base: float, rise: float) -> Plane:
    """Heights of a mountain range, (W,)."""
    return base - rise * fractal(rng, 4, width, max(8, width // 3), 0.5)[2]


def paint(width: int, height: int, seed: int = 0) -> Image.Image:
    """Sky, sun, two ranges, a lake with reflections, a meadow, a house and a wood."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / height
    sky = blend([(58, 96, 160), (150, 186, 222), (248, 216, 170)], (rows / 0.55).clip(0, 1))
    clouds = (fractal(rng, height, width, height // 3, 0.45) - 0.55).clip(0, 1)[..., None] * 2.2
    sky = sky + (255 - sky) * clouds * (1 - rows[..., None]).clip(0, 1)
    sun = np.exp(-(((columns - 1.1) ** 2 + (rows - 0.17) ** 2) / 0.004))[..., None]
    canvas = sky + (np.array([255, 246, 214]) - sky) * sun
    for base, rise, colours in (
        (0.52, 0.3, [(92, 104, 136), (150, 156, 176), (226, 230, 238)]),
        (0.58, 0.16, [(38, 62, 54), (66, 92, 66), (96, 118, 84)]),
    ):
        below = rows >= ridge(rng, width, base, rise)
        stone = blend(colours, fractal(rng, height, width, height // 5, 0.72))
        canvas = np.where(below[..., None], stone, canvas)
    shore = 0.6
    mirrored = np.clip((2 * shore - rows) * height, 0, height - 1).astype(int)
    water = canvas[mirrored, (columns * height).astype(int).clip(0, width - 1)] * 0.55 + np.array([18, 40, 62])
    canvas = np.where((rows >= shore)[..., None], water, canvas)
    meadow = rows >= 0.74 + 0.05 * np.sin(columns * 4.0)
    grass = blend([(48, 74, 26), (104, 132, 44), (182, 188, 92)], fractal(rng, height, width, 24, 0.95))
    canvas = np.where(meadow[..., None], grass, canvas)
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    build(ImageDraw.Draw(picture), rng, width, height)
    return picture.filter(ImageFilter.GaussianBlur(height / 1400))


def build(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A house with bricks and windows, and trees."""
    left, top, wide, high = 0.14 * width, 0.62 * height, 0.22 * width, 0.22 * height
    draw.rectangle((left, top, left + wide, top + high), fill=(158, 84, 62))
    brick = high / 16
    for row in range(16):
        for column in range(-1, int(wide / (2.4 * brick)) + 2):
            x = left + (column + row % 2 / 2) * 2.4 * brick
            shade = int(rng.integers(-18, 18))
            box = (max(left, x), top + row * brick, min(left + wide, x + 2.2 * brick), top + (row + 0.85) * brick)
            if box[2] > box[0]:
                draw.rectangle(box, fill=(168 + shade, 92 + shade, 70 + shade))
    roof = [(left - 0.02 * width, top), (left + wide / 2, top - 0.15 * height), (left + wide + 0.02 * width, top)]
    draw.polygon(roof, fill=(70, 66, 78))
    for share in (0.18, 0.62):
        x, y = left + share * wide, top + 0.2 * high
        draw.rectangle((x, y, x + 0.2 * wide, y + 0.4 * high), fill=(240, 226, 160), outline=(60, 44, 40), width=2)
    for _ in range(26):
        x, size = width * rng.uniform(0.5, 1.0), height * rng.uniform(0.1, 0.22)
        foot = height * rng.uniform(0.78, 0.97)
        green = int(rng.integers(46, 96))
        draw.rectangle((x - size / 22, foot - size / 4, x + size / 22, foot), fill=(72, 52, 36))
        for tier in range(4):
            y, half = foot - size * (0.2 + 0.2 * tier), size * (0.3 - 0.06 * tier)
            draw.polygon([(x - half, y), (x, y - size * 0.34), (x + half, y)], fill=(22, green - 8 * tier, 34))


def main() -> None:
    """Paint to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tile", type=int, help="write squares of so many pixels into the folder OUTPUT instead")
    options = parser.parse_args()
    picture = paint(options.width, options.height, options.seed)
    if options.tile is None:
        picture.save(options.output)
        return
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for top in range(0, options.height - options.tile + 1, options.tile):
        for left in range(0, options.width - options.tile + 1, options.tile):
            square = picture.crop((left, top, left + options.tile, top + options.tile))
            square.save(folder / f"{options.seed}-{top:04}-{left:04}.png")


if __name__ == "__main__":
    main()
