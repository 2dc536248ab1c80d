"""``dove decode``: a folder of tokens to a folder of images."""

import re
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro

from dove.flags import require_least


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Rebuild the images of a folder that `dove encode` wrote, as PNG files under the names of their records."""

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of tokens."""
    output: Path
    """Folder for the images."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """The checkpoint that made the tokens; by default the one they name."""
    num_tokens: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Use at most so many tokens of each image."""
    batch_size: int = 64
    """Images at a time."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        require_least("--batch-size", self.batch_size)


def run(options: DecodeOptions) -> None:
    """Decode every record."""
    from dove.data.progress_bar import ProgressBar
    from dove.photos.picture import encode_picture
    from dove.processor import ImageProcessor
    from dove.runtime import load_model, save_outputs
    from dove.store import TokenStore

    store = TokenStore.open(options.tokens)
    name = options.model or store.manifest.model
    store.check_checkpoint(name)
    store.require_complete()
    model = load_model(name, options.device)
    processor = ImageProcessor(model.image_size)
    taken: set[str] = set()
    with ProgressBar(total=store.manifest.records) as progress:
        for shard in store.shards():
            for start in range(0, len(shard.keys), options.batch_size):
                keys = shard.keys[start : start + options.batch_size]
                tokens = shard.tokens(model.max_tokens, start, start + options.batch_size)
                images = model.decode(tokens, options.num_tokens)
                for key, image in zip(keys, processor.to_pil(images), strict=True):
                    save_outputs({options.output / file_name(key, taken): encode_picture(image, ".png")})
                progress.update(len(keys))
    print(f"{len(taken)} images in {options.output}")


def file_name(key: str, taken: set[str]) -> str:
    """Name a PNG, inside the output folder whatever the key says, and unlike all ``taken`` before, which it joins."""
    path = relative_path(key)
    names = chain([str(path.with_suffix(".png")), f"{path}.png"], (f"{path}-{number}.png" for number in count(3)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def relative_path(key: str) -> PurePosixPath:
    """Turn a record's key into a path that stays below the folder it is used in; escaped bytes become underscores."""
    key = re.sub(r"\\x[0-9a-f]{2}", "_", key)
    parts = [part for part in PurePosixPath(key.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*(part.replace(":", "_").replace("\0", "_") for part in parts or ["image"]))
