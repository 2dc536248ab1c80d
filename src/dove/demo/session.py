"""Computations of the web page, without a browser: a picture at every length, photos in tiles, tokens as a file."""

import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
from dove.data.reading import read_image
from dove.errors import UserError
from dove.lengths import LengthPolicy, parse_length_policy
from dove.metrics import psnr
from dove.photos.picture import Cell, side_by_side
from dove.photos.tile_picture import TiledRow, draw_tiled, shrink
from dove.photos.tiled import reconstruct_tiled, scale_down, tile_photo
from dove.processor import ImageProcessor
from dove.protocol import Tokenizer, encode_each
from dove.query.tokenizer import QDove
from dove.store import Manifest, Shard, TokenStore
from dove.tokenizer import Dove
from dove.tokens import Tokens

BATCH_PIXELS = 2**20
"""Number of pixels that are decoded together: 256 pictures of 64 px, 16 of 256 px."""
LONGEST_SIDE = 1536
"""Longest side in pixels; a larger photo is scaled down before it is cut into tiles, so that nobody waits for minutes."""
TILE_OVERLAP = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefixes:
    """A picture rebuilt from every number of tokens that a tokenizer offers."""

    original: Image.Image
    """Part of the photo that the model sees, at the model's size."""
    counts: tuple[int, ...]
    """Numbers of tokens, ascending."""
    pictures: list[Image.Image]
    """One picture for each number of tokens."""
    psnr: list[float]
    """PSNR in dB against ``original``, for each number of tokens."""
    auto: int
    """The length that the model chose by itself."""
    tokens: Float[Tensor, "1 K D"]
    """All tokens that were decoded; for a model that is no DOVE those of its largest number."""

    def at(self, num_tokens: int) -> int:
        """Return the index of the largest number that is at most ``num_tokens``, or of the smallest there is."""
        return max(0, sum(count <= num_tokens for count in self.counts) - 1)

    def fewest(self, decibels: float) -> int:
        """Return the fewest tokens whose measured PSNR reaches ``decibels``; all where none do."""
        reached = (count for count, value in zip(self.counts, self.psnr, strict=True) if value >= decibels)
        return next(reached, self.counts[-1])


@torch.no_grad()
def rebuild_prefixes(tokenizer: Tokenizer, photo: Image.Image, query: str | None = None) -> Prefixes:
    """Encode the central square of a photo once and decode all its prefixes together.

    Args:
        tokenizer: tokenizer of any kind.
        photo: RGB picture.
        query: subject that the tokens of a ``QDove`` describe first.

    Raises:
        UserError: for a query to a model that takes none, or one without words.
    """
    processor = ImageProcessor(tokenizer.image_size)
    pixels = processor(photo)
    device = next(tokenizer.parameters()).device if isinstance(tokenizer, torch.nn.Module) else torch.device("cpu")
    tokens, auto = _encode(tokenizer, pixels.to(device), query)
    portion = max(1, BATCH_PIXELS // tokenizer.image_size**2)
    rebuilt = torch.cat(
        [tokenizer.decode(tokens[slice(start, start + portion)]).cpu() for start in range(0, len(tokens), portion)]
    )
    return Prefixes(
        original=processor.to_pil(pixels)[0],
        counts=tokenizer.token_counts,
        pictures=processor.to_pil(rebuilt),
        psnr=psnr(rebuilt, pixels.expand_as(rebuilt)).tolist(),
        auto=auto,
        tokens=tokens.values[-1:].cpu(),
    )


def _encode(tokenizer: Tokenizer, pixels: Float[Tensor, "1 3 S S"], query: str | None) -> tuple[Tokens, int]:
    """Encode to one row for each number of tokens, and to the length that the model chooses."""
    counts = tokenizer.token_counts
    if not isinstance(tokenizer, Dove):
        if query:
            raise UserError("this model takes no queries; leave the query empty")
        return Tokens.cat(encode_each(tokenizer, pixels, list(counts))), counts[-1]
    requests: list[int | str | LengthPolicy] = [counts[-1], "auto"]
    if isinstance(tokenizer, QDove):
        whole, chosen = tokenizer.encode_each(pixels, requests, query or None)
    elif query:
        raise UserError("this model takes no queries; leave the query empty")
    else:
        whole, chosen = tokenizer.encode_each(pixels, requests)
    lengths = torch.tensor(counts, device=whole.values.device)
    # A prefix of one encoding is the encoding of that length.
    return Tokens.cut(whole.values.expand(len(counts), -1, -1), lengths), int(chosen.lengths[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledPhoto:
    """A photo rebuilt in tiles of their own lengths."""

    picture: Image.Image
    """The photo and its reconstruction with the map of tokens over the tiles."""
    rebuilt: Image.Image
    tokens: int
    tiles: int
    psnr: float
    scaled: bool
    """True where the photo was scaled down first."""


def rebuild_tiles(model: Dove, photo: Image.Image, request: str, query: str | None = None) -> TiledPhoto:
    """Rebuild a whole photo, each of its tiles at a length of its own.

    Args:
        model: the tokenizer.
        photo: RGB; scaled down to ``LONGEST_SIDE`` pixels where it is larger.
        request: any length policy, such as "psnr>=25" or "budget 16".
        query: as in ``rebuild_prefixes``.

    Raises:
        UserError: for a request that the model does not understand.
    """
    policy = parse_length_policy(request, model.max_tokens)
    smaller = scale_down(photo, LONGEST_SIDE)
    tiling = tile_photo(smaller, model.image_size, TILE_OVERLAP)
    rebuilt = reconstruct_tiled(model, smaller, tiling, [policy], query or None)
    tokens, quality = int(rebuilt.lengths[0].sum()), rebuilt.psnr[0]
    captions = [
        ("photo", f"{smaller.width} × {smaller.height} px, {len(tiling)} tiles"),
        (str(policy), f"{tokens:,} tokens, {tokens / len(tiling):.1f} a tile, {quality:.1f} dB"),
    ]
    row = TiledRow(
        photo=shrink(smaller),
        rebuilt=[shrink(rebuilt.pictures[0])],
        captions=captions,
        tiling=tiling,
        lengths=rebuilt.lengths,
    )
    return TiledPhoto(
        picture=draw_tiled([row]),
        rebuilt=rebuilt.pictures[0],
        tokens=tokens,
        tiles=len(tiling),
        psnr=quality,
        scaled=smaller.size != photo.size,
    )


def compare(prefixes: Mapping[str, Prefixes], num_tokens: int) -> Image.Image:
    """Draw several models' reconstructions beside the original, each at its largest number up to ``num_tokens``.

    Args:
        prefixes: of the same photo, by what the models are called.
        num_tokens: at least 1.
    """
    size = max(one.original.width for one in prefixes.values())
    first = next(iter(prefixes.values()))
    cells = [Cell(_enlarge(first.original, size), "original")]
    for label, one in prefixes.items():
        index = one.at(num_tokens)
        caption = f"{label}: {one.counts[index]}, {one.psnr[index]:.1f} dB"
        cells.append(Cell(_enlarge(one.pictures[index], size), caption))
    return side_by_side([cells])


def _enlarge(picture: Image.Image, size: int) -> Image.Image:
    return picture if picture.width == size else picture.resize((size, size), Image.Resampling.BICUBIC)


def describe(prefixes: Prefixes, num_tokens: int) -> str:
    """Describe a length in one line of Markdown."""
    index = prefixes.at(num_tokens)
    count, width = prefixes.counts[index], prefixes.tokens.shape[2]
    return (
        f"**{count} of {prefixes.counts[-1]} tokens** · **{prefixes.psnr[index]:.1f} dB** · {count} × {width} numbers, "
        f"{2 * count * width / 1000:.1f} kB in fp16 · `auto` gives {prefixes.auto}"
    )


def write_tokens(folder: Path, model: str, prefixes: Prefixes, num_tokens: int, name: str) -> Path:
    """Write a zip file whose content `dove decode` decodes to the picture.

    Args:
        folder: where to write it.
        model: the checkpoint that made the tokens, a DOVE.
        prefixes: of the picture.
        num_tokens: how many to keep, from 1 to K.
        name: of the picture.

    Raises:
        UserError: if it cannot be written.
    """
    key = re.sub(r"[^\w.-]+", "-", Path(name).stem) or "picture"
    capacity, width = prefixes.tokens.shape[1:]
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
        store.write(0, Shard([key], [prefixes.tokens[0, :num_tokens]], []))
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(store.folder.iterdir()):
                archive.write(file, f"tokens/{file.name}")
    return target


def read_photo(path: str, max_megapixels: float) -> Image.Image:
    """Read an uploaded picture as upright RGB.

    Raises:
        UserError: if it is no picture, damaged, or of more pixels than allowed.
    """
    photo = read_image(path, name=Path(path).name)
    if photo.width * photo.height > max_megapixels * 1e6:
        raise UserError(
            f"{photo.width} × {photo.height} pixels are more than {max_megapixels:g} million; scale it down"
        )
    return photo


def parse_compared(entries: Sequence[str]) -> dict[str, str]:
    """Parse entries LABEL=CHECKPOINT to checkpoints by label.

    Raises:
        UserError: for an entry of another form, or a label that comes twice.
    """
    compared: dict[str, str] = {}
    for entry in entries:
        label, separator, source = entry.partition("=")
        if not (separator and label and source):
            raise UserError(f"--compare {entry!r} is not LABEL=CHECKPOINT; pass for example --compare TiTok=runs/titok")
        if label in compared:
            raise UserError(f"--compare has the label {label!r} twice; pass another one")
        compared[label] = source
    return compared
