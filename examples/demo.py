"""Rebuild sample photos with the shipped checkpoint: 1, 4, 16 and as many tokens as each photo needs.

The photos come with scikit-image and scikit-learn; a patch of plain sky is cut from one of them, because the point is how
differently a simple and a complex picture are treated. Writes results/demo.png and results/demo.json.
"""

import sys
from pathlib import Path

from PIL import Image
from skimage import data_dir
from sklearn import datasets

from dove.cli import main

OUTPUT = Path("results")
PHOTOS = {
    "astronaut": Path(data_dir) / "astronaut.png",
    "cat": Path(data_dir) / "chelsea.png",
    "coffee": Path(data_dir) / "coffee.png",
    "flower": Path(datasets.__file__).parent / "images" / "flower.jpg",
    "temple": Path(datasets.__file__).parent / "images" / "china.jpg",
}
SKY = (0, 0, 100, 100)
"""Left, upper, right, lower of a cloudless corner in the photo of the temple."""


def collect(folder: Path) -> list[str]:
    """The photos under readable names, and the patch of sky."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, source in PHOTOS.items():
        path = folder / f"{name}.png"
        with Image.open(source) as photo:
            photo.convert("RGB").save(path)
            if name == "temple":
                photo.convert("RGB").crop(SKY).save(folder / "sky.png")
        paths.append(str(path))
    return [str(folder / "sky.png"), *paths]


if __name__ == "__main__":
    photos = collect(OUTPUT / "photos")
    arguments = ["--num-tokens", "1", "4", "16", "auto", "--output", str(OUTPUT / "demo.png")]
    sys.exit(main(["reconstruct", *photos, *arguments, "--json", str(OUTPUT / "demo.json")]))
