"""Files of the web page: uploads and example pictures."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from dove.data.reading import read_image
from dove.errors import UserError

EXAMPLES = ("astronaut", "cat", "coffee", "rocket", "page")  # Pictures that lie in scikit-image itself


def write_examples(folder: Path) -> list[Path]:
    """Write the example pictures as files, smaller than they are."""
    paths = []
    for name in EXAMPLES:
        picture = Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
        paths.append(folder / f"{name}.png")
        picture.save(paths[-1])
    return paths


def read_photo(path: str, max_megapixels: float) -> Image.Image:
    """Read an uploaded picture as upright RGB."""
    photo = read_image(path, name=Path(path).name)
    if photo.width * photo.height > max_megapixels * 1e6:
        raise UserError(
            f"{photo.width} × {photo.height} pixels are more than {max_megapixels:g} million; scale it down"
        )
    return photo
