"""Photos of any size, rebuilt tile by tile, for ``dove reconstruct --tile``."""

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


def reconstruct_photo(
    model: "Tokenizer", record: "Record", policies: Sequence["LengthPolicy"], query: str | None, max_side: int | None
) -> "tuple[Image, Tiling, TiledReconstructions]":
    """Rebuild a photo, scaled down if asked, from its tiles at every length."""
    from dove.data.progress_bar import ProgressBar
    from dove.photos.tiled import passes, reconstruct_tiled, scale_down
    from dove.photos.tiling import Tiling

    photo = record.image if max_side is None else scale_down(record.image, max_side)
    tiling = Tiling(height=photo.height, width=photo.width, tile=model.image_size, overlap=OVERLAP)
    with ProgressBar(total=passes(policies) * len(tiling), desc=record.key, unit="tile") as bar:
        return photo, tiling, reconstruct_tiled(model, photo, tiling, policies, query, bar.update)


def tiled_row(photo: "Image", tiling: "Tiling", rebuilt: "TiledReconstructions", result: dict[str, Any]) -> "TiledRow":
    """Make the row of a photo and its reconstructions with captions."""
    from dove.photos.tile_picture import PANEL, TiledRow
    from dove.photos.tiled import scale_down

    captions = [f"{Path(result['path']).name}\n{photo.width} × {photo.height} px, {len(tiling)} tiles"]
    for row in result["rows"]:
        mean = row["length"] / len(tiling)
        name = row["num_tokens"] if isinstance(row["num_tokens"], str) else f"{row['num_tokens']} tokens a tile"
        captions.append(f"{name}\n{row['length']:,} tokens, {mean:.1f} a tile, {row['psnr']:.1f} dB")
    return TiledRow(
        photo=scale_down(photo, PANEL),
        rebuilt=[scale_down(picture, PANEL) for picture in rebuilt.pictures],
        captions=captions,
        tiling=tiling,
        lengths=rebuilt.lengths,
    )
