"""Photos of any size, rebuilt tile by tile, for ``dove reconstruct --tile``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dove.commands.reconstruct_outcome import Outcome, describe
from dove.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dove.data.dataset import ImageDataset
    from dove.lengths import LengthPolicy
    from dove.photos.tile_picture import TiledRow
    from dove.photos.tiled import TiledReconstructions
    from dove.photos.tiling import Tiling
    from dove.protocol import Tokenizer

OVERLAP = 8  # Least overlap of neighbouring tiles, in pixels, which are blended
MOST_TILED_ROWS = 8  # Largest number of photos in the picture; they are larger there than whole images are


def require_plots() -> None:
    """Check that the picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--tile draws with matplotlib; install it with: pip install 'dove-encoder[eval]'") from error


def reconstruct_tiles(
    model: "Tokenizer",
    dataset: "ImageDataset",
    policies: Sequence["LengthPolicy"],
    query: str | None,
    max_side: int | None = None,
) -> Outcome:
    """Rebuild every photo of a source from its tiles at every length."""
    from dove.data.dataset import Unreadable
    from dove.data.progress_bar import ProgressBar
    from dove.photos.tiled import passes, reconstruct_tiled, scale_down
    from dove.photos.tiling import Tiling

    outcome = Outcome()
    for record in dataset:
        if isinstance(record, Unreadable):
            outcome.unreadable.append(record)
            continue
        photo = record.image if max_side is None else scale_down(record.image, max_side)
        tiling = Tiling(height=photo.height, width=photo.width, tile=model.image_size, overlap=OVERLAP)
        total = passes(policies) * len(tiling)
        with ProgressBar(total=total, desc=record.key, unit="tile") as bar:
            rebuilt = reconstruct_tiled(model, photo, tiling, policies, query, bar.update)
        totals = [int(lengths.sum()) for lengths in rebuilt.lengths]
        result = describe(record, policies, totals, rebuilt.psnr, query)
        if photo is not record.image:
            result["scaled_to"] = list(photo.size)
        outcome.results.append(add_tiles(result, tiling, rebuilt))
        if len(outcome.tiled_rows) < MOST_TILED_ROWS:
            outcome.tiled_rows.append(tiled_row(photo, tiling, rebuilt, result))
    return outcome


def add_tiles(result: dict[str, Any], tiling: "Tiling", rebuilt: "TiledReconstructions") -> dict[str, Any]:
    """Add the number of tiles and, row by row, their lengths to the JSON object of a photo."""
    result["tiles"] = len(tiling)
    for row, lengths in zip(result["rows"], rebuilt.lengths, strict=True):
        row["tile_lengths"] = lengths.tolist()
    return result


def tiled_row(photo: "Image", tiling: "Tiling", rebuilt: "TiledReconstructions", result: dict[str, Any]) -> "TiledRow":
    """Make the row of a photo and its reconstructions with captions."""
    from pathlib import Path

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
