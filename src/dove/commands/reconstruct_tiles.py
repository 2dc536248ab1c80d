"""Photos of any size, rebuilt tile by tile, for ``dove reconstruct --tile``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from dove.data.dataset import Record
    from dove.lengths import LengthPolicy
    from dove.photos.tile_picture import TiledRow
    from dove.photos.tiled import TiledReconstructions
    from dove.photos.tiling import Tiling
    from dove.protocol import Tokenizer

OVERLAP = 8  # Least overlap of neighbouring tiles, in pixels, which are blended
MANY_TILES = 1000  # Number of tiles from which a photo's plan is printed before its reconstruction


def reconstruct_photo(
    model: "Tokenizer", record: "Record", policies: Sequence["LengthPolicy"], query: str | None, max_side: int | None
) -> "tuple[Image, Tiling, TiledReconstructions]":
    """Rebuild a photo, scaled down if asked, from its tiles at every length; the plan of a large one is printed first."""
    from dove.data.progress_bar import ProgressBar
    from dove.photos.tiled import passes, reconstruct_tiled, scale_down, tile_photo

    photo = record.image if max_side is None else scale_down(record.image, max_side)
    tiling = tile_photo(photo, model.image_size, OVERLAP)
    if len(tiling) >= MANY_TILES:
        print(plan(record.key, model, photo, tiling, policies, query), file=sys.stderr)
    with ProgressBar(total=passes(policies) * len(tiling), desc=record.key, unit="tile") as bar:
        return photo, tiling, reconstruct_tiled(model, photo, tiling, policies, query, bar.update)


def plan(
    key: str,
    model: "Tokenizer",
    photo: "Image",
    tiling: "Tiling",
    policies: Sequence["LengthPolicy"],
    query: str | None,
) -> str:
    """Describe the tiles and the time of a photo in one line, with an option that reduces them."""
    from dove.photos.tiled import estimate_seconds
    from dove.photos.tiling import Tiling

    half = Tiling(
        height=max(1, photo.height // 2), width=max(1, photo.width // 2), tile=tiling.tile, overlap=tiling.overlap
    )
    seconds = estimate_seconds(model, photo, tiling, policies, query)
    return (
        f"{key}: {photo.width} x {photo.height} px in {len(tiling):,} tiles at {len(policies)} lengths, about "
        f"{duration(seconds)}; --max-side {max(photo.size) // 2} would make it {len(half):,} tiles, "
        f"{duration(seconds * len(half) / len(tiling))}"
    )


def duration(seconds: float) -> str:
    """Format a duration: seconds below two minutes, else minutes."""
    return f"{max(1, round(seconds))} s" if seconds < 120 else f"{round(seconds / 60)} minutes"


def tiled_row(photo: "Image", tiling: "Tiling", rebuilt: "TiledReconstructions", result: dict[str, Any]) -> "TiledRow":
    """Make the row of a photo and its reconstructions with captions."""
    from dove.photos.tile_picture import TiledRow, shrink

    captions = [(Path(result["path"]).name, f"{photo.width} × {photo.height} px, {len(tiling)} tiles")]
    for row in result["rows"]:
        mean = row["length"] / len(tiling)
        name = row["num_tokens"] if isinstance(row["num_tokens"], str) else f"{row['num_tokens']} tokens a tile"
        captions.append((name, f"{row['length']:,} tokens, {mean:.1f} a tile, {row['psnr']:.1f} dB"))
    return TiledRow(
        photo=shrink(photo),
        rebuilt=[shrink(picture) for picture in rebuilt.pictures],
        captions=captions,
        tiling=tiling,
        lengths=rebuilt.lengths,
    )
