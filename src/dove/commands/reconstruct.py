"""The command ``dove reconstruct``: images rebuilt from several numbers of tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.errors import UserError
from dove.flags import require_least

if TYPE_CHECKING:
    from PIL.Image import Image

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
        if self.max_side is not None and not self.tile:
            raise UserError(f"--max-side {self.max_side} has no effect without --tile; add it or leave both out")
        require_least("--max-side", self.max_side)
        if self.tile and find_spec("matplotlib") is None:
            raise UserError("--tile draws with matplotlib; install it with: pip install 'dove-encoder[eval]'")


@dataclass
class Outcome:
    """Results for the images of a source."""

    results: list[dict[str, Any]] = field(default_factory=list)  # Objects of the JSON file
    rows: "list[list[Cell]]" = field(default_factory=list)  # First ``MOST_ROWS`` rows of the picture
    tiled_rows: "list[TiledRow]" = field(default_factory=list)  # Rows of the picture for photos in tiles
    unreadable: "list[Unreadable]" = field(default_factory=list)


def run(options: ReconstructOptions) -> None:
    """Rebuild every readable image and write what was asked for."""
    from dove.data.images import open_images, summarise_unreadable
    from dove.lengths import parse_length_policy
    from dove.query.tokenizer import require_queries
    from dove.runtime import load_model, save_outputs

    dataset = open_images(
        options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
    )
    model = load_model(options.model, options.device)
    require_queries(model, options.query)
    requests: Sequence[int | str] = options.num_tokens or [
        *(n for n in DEFAULT_LENGTHS if n in model.token_counts),
        "auto",
    ]
    policies = [parse_length_policy(request, model.max_tokens) for request in requests]
    if options.tile:
        outcome = reconstruct_tiles(model, dataset, policies, options.query, options.max_side)
    else:
        outcome = reconstruct_all(model, dataset, policies, options.query)
    if outcome.results:
        outputs = make_outputs(outcome, options)
        save_outputs(outputs)
        print(table(outcome.results))
        for path in outputs:
            shown = len(outcome.rows) + len(outcome.tiled_rows)
            hidden = path == options.output and shown < len(outcome.results)
            print(f"wrote {path}{f' (the first {shown} images)' if hidden else ''}")
    if outcome.unreadable:
        raise UserError(summarise_unreadable(outcome.unreadable, len(dataset)))


def reconstruct_all(
    model: "Tokenizer", dataset: "ImageDataset", policies: Sequence["LengthPolicy"], query: str | None
) -> Outcome:
    """Rebuild every image of a source at every length."""
    from dove.data.dataset import Unreadable
    from dove.data.progress_bar import ProgressBar
    from dove.photos.reconstruction import choose_together, reconstruct
    from dove.processor import ImageProcessor

    processor = ImageProcessor(model.image_size)
    outcome = Outcome()
    readable = (
        processor.preprocess(record.image)[None]
        for record in ProgressBar(dataset, total=len(dataset), desc="budget")
        if not isinstance(record, Unreadable)
    )
    chosen = choose_together(model, readable, policies, query)
    for record in ProgressBar(dataset, total=len(dataset)):
        if isinstance(record, Unreadable):
            outcome.unreadable.append(record)
            continue
        pixels = processor.preprocess(record.image)
        given = [None if lengths is None else int(lengths[len(outcome.results)]) for lengths in chosen]
        rebuilt = reconstruct(model, pixels, policies, query, given)
        outcome.results.append(describe(record, policies, rebuilt.lengths, rebuilt.psnr, query))
        if len(outcome.rows) < MOST_ROWS:
            images = processor.to_pil(pixels) + processor.to_pil(rebuilt.images)
            outcome.rows.append(picture_row(images, outcome.results[-1]))
    return outcome


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


def reconstruct_tiles(
    model: "Tokenizer",
    dataset: "ImageDataset",
    policies: Sequence["LengthPolicy"],
    query: str | None,
    max_side: int | None,
) -> Outcome:
    """Rebuild every photo of a source from its tiles at every length."""
    from dove.commands.reconstruct_tiles import reconstruct_photo, tiled_row
    from dove.data.dataset import Unreadable

    outcome = Outcome()
    for record in dataset:
        if isinstance(record, Unreadable):
            outcome.unreadable.append(record)
            continue
        photo, tiling, rebuilt = reconstruct_photo(model, record, policies, query, max_side)
        totals = [int(lengths.sum()) for lengths in rebuilt.lengths]
        result = describe(record, policies, totals, rebuilt.psnr, query)
        if photo is not record.image:
            result["scaled_to"] = list(photo.size)
        result["tiles"] = len(tiling)
        for row, lengths in zip(result["rows"], rebuilt.lengths, strict=True):
            row["tile_lengths"] = lengths.tolist()
        outcome.results.append(result)
        if len(outcome.tiled_rows) < MOST_TILED_ROWS:
            outcome.tiled_rows.append(tiled_row(photo, tiling, rebuilt, result))
    return outcome


def picture_row(images: Sequence["Image"], result: dict[str, Any]) -> "list[Cell]":
    """Make the row of an original and its reconstructions with captions."""
    from dove.photos.picture import Cell

    captions = [Path(result["path"]).name]
    for row in result["rows"]:
        prefix = "" if row["num_tokens"] == row["length"] else f"{row['num_tokens']}: "
        captions.append(f"{prefix}{row['length']} token{'s' * (row['length'] != 1)}, {row['psnr']:.1f} dB")
    return [Cell(image, caption) for image, caption in zip(images, captions, strict=True)]


def make_outputs(outcome: Outcome, options: ReconstructOptions) -> dict[Path, bytes]:
    """Encode the files that were asked for."""
    from dove.photos.picture import encode_picture, side_by_side

    if options.tile:
        from dove.photos.tile_picture import draw_tiled

        picture = draw_tiled(outcome.tiled_rows)
    else:
        picture = side_by_side(outcome.rows)
    outputs = {options.output: encode_picture(picture, options.output.suffix)}
    if options.json is not None:
        outputs[options.json] = (json.dumps(outcome.results, indent=2, ensure_ascii=False) + "\n").encode()
    return outputs


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
            lines.append(
                (f"mean of {len(results)}", str(column[0]["num_tokens"]), f"{length:.1f}", f"{quality:.2f} dB")
            )
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]:>{widths[3]}}"
        for line in lines
    )
