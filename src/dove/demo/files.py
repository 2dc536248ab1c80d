"""Files of the web page: uploads, example pictures, tokens to download."""

import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
from dove.data.reading import read_image
from dove.errors import UserError
from dove.store import Manifest, Shard, TokenStore
from dove.tokens import Tokens

EXAMPLES = ("astronaut", "cat", "coffee", "rocket", "page")  # Pictures that lie in scikit-image itself
LONGEST_NAME = 80  # Characters of a picture's name that the names of its files keep


def write_examples(folder: Path) -> list[Path]:
    """Write the example pictures as files, smaller than they are."""
    paths = []
    for name in EXAMPLES:
        picture = Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
        paths.append(folder / f"{name}.png")
        picture.save(paths[-1])
    return paths


def write_tokens(folder: Path, model: str, tokens: Tokens, name: str) -> Path:
    """Write a zip file whose content `dove decode` decodes to the picture."""
    key = re.sub(r"[^\w.-]+", "-", Path(name).stem)[:LONGEST_NAME] or "picture"
    capacity, width = tokens.values.shape[1:]
    num_tokens = int(tokens.lengths[0])
    manifest = Manifest(
        model=model,
        checkpoint_sha256=checkpoint_sha256(resolve_checkpoint(model)),
        num_tokens=str(num_tokens),
        max_tokens=capacity,
        token_dim=width,
        dtype="fp32",
        source=[name],
        records=1,
        shard_size=1,
    )
    target = folder / f"{key}-{num_tokens}-tokens.zip"
    with tempfile.TemporaryDirectory() as scratch:
        store = TokenStore.create(Path(scratch) / "tokens", manifest)
        store.write(0, Shard([key], [tokens.values[0, :num_tokens].cpu()], []))
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(store.folder.iterdir()):
                archive.write(file, f"tokens/{file.name}")
    return target


def read_photo(path: str, max_megapixels: float) -> Image.Image:
    """Read an uploaded picture as upright RGB."""
    photo = read_image(path, name=Path(path).name)
    if photo.width * photo.height > max_megapixels * 1e6:
        raise UserError(
            f"{photo.width} × {photo.height} pixels are more than {max_megapixels:g} million; scale it down"
        )
    return photo
