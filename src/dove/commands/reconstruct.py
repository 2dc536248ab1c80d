"""The command ``dove reconstruct``: images rebuilt from several numbers of tokens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.errors import UserError
from dove.flags import require_least

if TYPE_CHECKING:
    from dove.data.dataset import ImageDataset, Record, Unreadable
    from dove.lengths import LengthPolicy
    from dove.photos.picture import Cell
    from dove.photos.tile_picture import TiledRow
    from dove.protocol import Tokenizer

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
DEFAULT_LENGTHS = (4, 16, 64)
MOST_ROWS, MOST_TILED_ROWS = 64, 8
"""Most images in the picture, and most photos in tiles, which are larger there; the table and the JSON file have all."""


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """Rebuild images from several numbers of tokens: a table, a picture of them side by side, a JSON file."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES...")]
    """Image files, folders, patterns, parquet files, .tar shards or hub datasets."""
    model: str = "dove-tiny"
    """A shipped checkpoint, a checkpoint folder or a hub id, of any tokenizer."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto|...")] = ()
    """Numbers of tokens, by default 4, 16, 64 and auto, as far as the model has them:
    a number, auto (up to each image's own end), auto-1.5 (more of them), auto+1.5 (fewer),
    "max 32" (auto, but at most 32), "psnr>=25" or "lpips<=0.2" (the fewest predicted to reach it), "budget 16" (16 on
    average over all images, or over all tiles of a photo), "search psnr>=25" (the fewest that reach it, by decoding)."""
    tile: bool = False
    """Rebuild photos in full, whatever their size, from tiles that each get their own number of tokens; the picture then
    has maps of where the tokens went."""
    max_side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """With --tile: scale photos down until their longer side has so many pixels; time goes with the square of it."""
    query: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Subject that the tokens of a Q-DOVE describe first; null asks for the whole image."""
    output: Path = Path("reconstruction.png")
    """File for the picture: .png, .jpg or .webp."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """File for the numbers: one object for each image with its path, query and rows of num_tokens, length and psnr; with
    --tile also tiles (how many), scaled_to (width and height, after --max-side) and in every row tile_lengths."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Largest number of images; the first of the source are taken."""
    image_column: str = "image"
    """Column of parquet files and hub datasets that holds the images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if self.output.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError(f"--output {self.output}: a picture's name ends in {', '.join(PICTURE_SUFFIXES)}")
        for path in (self.output, self.json):
            if path is not None and path.is_dir():
                raise UserError(f"{path} is a folder; pass the name of a file to write")
        if self.json is not None and self.json.resolve() == self.output.resolve():
            raise UserError(f"--output and --json are both {self.output}; pass two names")
        if self.max_side is not None and not self.tile:
            raise UserError(f"--max-side {self.max_side} has no effect without --tile; add it or leave both out")
        require_least("--max-side", self.max_side)
        if self.tile and find_spec("matplotlib") is None:
            raise UserError("--tile draws with matplotlib; install it with: pip install 'dove-encoder[eval]'")


def run(options: ReconstructOptions) -> None:
    """Rebuild every readable image and write what was asked for."""
    from dove.data.dataset import Unreadable, summarise_unreadable
    from dove.data.images import open_images
    from dove.lengths import parse_length_policy
    from dove.photos.picture import encode_picture, side_by_side
    from dove.query.tokenizer import require_queries
    from dove.runtime import load_model, save_outputs

    dataset = open_images(
        options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
    )
    keep_images(dataset, (options.output, options.json))
    model = load_model(options.model, options.device)
    require_queries(model, options.query)
    requests: Sequence[int | str] = options.num_tokens or [
        *(n for n in DEFAULT_LENGTHS if n in model.token_counts),
        "auto",
    ]
    policies = [parse_length_policy(request, model.max_tokens) for request in requests]
    rebuild, most = (reconstruct_tiles, MOST_TILED_ROWS) if options.tile else (reconstruct_squares, MOST_ROWS)
    results: list[dict[str, Any]] = []  # Objects of the JSON file
    rows: list[Any] = []  # First rows of the picture
    unreadable: list[Unreadable] = []
    for found in rebuild(model, dataset, policies, options):
        if isinstance(found, Unreadable):
            unreadable.append(found)
            continue
        results.append(found[0])
        rows += [found[1]] if len(rows) < most else []
    if results:
        if options.tile:
            from dove.photos.tile_picture import draw_tiled

            picture = draw_tiled(rows)
        else:
            picture = side_by_side(rows)
        outputs = {options.output: encode_picture(picture, options.output.suffix)}
        if options.json is not None:
            outputs[options.json] = (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode()
        save_outputs(outputs)
        print(table(results))
        for path in outputs:
            hidden = path == options.output and len(rows) < len(results)
            print(f"wrote {path}{f' (the first {len(rows)} images)' if hidden else ''}")
    if unreadable:
        raise UserError(summarise_unreadable(unreadable, len(dataset)))


def keep_images(dataset: "ImageDataset", outputs: Sequence[Path | None]) -> None:
    """Refuse to write over an image that is read."""
    existing = [path for path in outputs if path is not None and path.exists()]
    read = {Path(path).resolve() for path in dataset.files} if existing else set()
    for path in existing:
        if path.resolve() in read:
            raise UserError(f"{path} is one of the images; pass another --output or --json")


def reconstruct_squares(
    model: "Tokenizer", dataset: "ImageDataset", policies: Sequence["LengthPolicy"], options: ReconstructOptions
) -> "Iterator[Unreadable | tuple[dict[str, Any], list[Cell]]]":
    """Rebuild the central square of every image; give its object of the JSON file and its row of the picture."""
    from dove.data.dataset import Unreadable
    from dove.data.progress_bar import ProgressBar
    from dove.photos.picture import Cell
    from dove.photos.reconstruction import choose_together, reconstruct
    from dove.processor import ImageProcessor
    from dove.tokens import format_token_count

    processor = ImageProcessor(model.image_size)
    readable = (
        processor.preprocess(record.image)[None]
        for record in ProgressBar(dataset, total=len(dataset), desc="budget")
        if not isinstance(record, Unreadable)
    )
    together = choose_together(model, readable, policies, options.query)
    chosen = [repeat(None) if lengths is None else iter(lengths.tolist()) for lengths in together]
    for record in ProgressBar(dataset, total=len(dataset)):
        if isinstance(record, Unreadable):
            yield record
            continue
        pixels = processor.preprocess(record.image)
        rebuilt = reconstruct(model, pixels, policies, options.query, [next(lengths) for lengths in chosen])
        result = describe(record, policies, rebuilt.lengths, rebuilt.psnr, options.query)
        captions = [Path(result["path"]).name]
        for row in result["rows"]:
            prefix = "" if row["num_tokens"] == row["length"] else f"{row['num_tokens']}: "
            captions.append(f"{prefix}{format_token_count(row['length'])}, {row['psnr']:.1f} dB")
        images = processor.to_pil(pixels) + processor.to_pil(rebuilt.images)
        yield result, list(map(Cell, images, captions))


def reconstruct_tiles(
    model: "Tokenizer", dataset: "ImageDataset", policies: Sequence["LengthPolicy"], options: ReconstructOptions
) -> "Iterator[Unreadable | tuple[dict[str, Any], TiledRow]]":
    """Rebuild every photo in full from its tiles; give its object of the JSON file and its row of the picture."""
    from dove.data.dataset import Unreadable
    from dove.data.progress_bar import ProgressBar
    from dove.photos.tile_picture import PANEL, TiledRow
    from dove.photos.tiled import OVERLAP, passes, reconstruct_tiled, scale_down
    from dove.photos.tiling import Tiling

    for record in dataset:
        if isinstance(record, Unreadable):
            yield record
            continue
        photo = record.image if options.max_side is None else scale_down(record.image, options.max_side)
        tiling = Tiling(height=photo.height, width=photo.width, tile=model.image_size, overlap=OVERLAP)
        with ProgressBar(total=passes(policies) * len(tiling), desc=record.key, unit="tile") as bar:
            rebuilt = reconstruct_tiled(model, photo, tiling, policies, options.query, bar.update)
        totals = [int(lengths.sum()) for lengths in rebuilt.lengths]
        result = describe(record, policies, totals, rebuilt.psnr, options.query)
        if photo is not record.image:
            result["scaled_to"] = list(photo.size)
        result["tiles"] = len(tiling)
        captions = [f"{Path(result['path']).name}\n{photo.width} × {photo.height} px, {len(tiling)} tiles"]
        for row, lengths in zip(result["rows"], rebuilt.lengths, strict=True):
            row["tile_lengths"] = lengths.tolist()
            name = row["num_tokens"] if isinstance(row["num_tokens"], str) else f"{row['num_tokens']} tokens a tile"
            mean = row["length"] / len(tiling)
            captions.append(f"{name}\n{row['length']:,} tokens, {mean:.1f} a tile, {row['psnr']:.1f} dB")
        panels = TiledRow(
            photo=scale_down(photo, PANEL),
            rebuilt=[scale_down(picture, PANEL) for picture in rebuilt.pictures],
            captions=captions,
            tiling=tiling,
            lengths=rebuilt.lengths,
        )
        yield result, panels


def describe(
    record: "Record",
    policies: Sequence["LengthPolicy"],
    lengths: Sequence[int],
    qualities: Sequence[float],
    query: str | None,
) -> dict[str, Any]:
    """Make the JSON object of one image. Its path is that of the file, or in other sources the record's key."""
    file = record.metadata.get("path") or ""
    return {
        "path": file if file.endswith(record.key) else record.key,
        "query": query,
        "rows": [
            {"num_tokens": int(text) if (text := str(policy)).isdigit() else text, "length": length, "psnr": quality}
            for policy, length, quality in zip(policies, lengths, qualities, strict=True)
        ],
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Format one line for each image and number of tokens; for several images also their means."""
    lines = [("image", "num_tokens", "tokens", "PSNR")]
    for result in results:
        for row in result["rows"]:
            mean = f" ({row['length'] / result['tiles']:.1f} a tile)" if "tiles" in result else ""
            lines.append((result["path"], str(row["num_tokens"]), f"{row['length']}{mean}", f"{row['psnr']:.2f} dB"))
    if len(results) > 1:
        for column in zip(*(result["rows"] for result in results), strict=True):
            length, quality = (fmean(row[name] for row in column) for name in ("length", "psnr"))
            request = str(column[0]["num_tokens"])
            lines.append((f"mean of {len(results)}", request, f"{length:.1f}", f"{quality:.2f} dB"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in lines
    )
