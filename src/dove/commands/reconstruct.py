"""The command ``dove reconstruct``: images rebuilt from several numbers of tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.commands.reconstruct_outcome import Outcome, describe
from dove.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dove.data.dataset import ImageDataset
    from dove.lengths import LengthPolicy
    from dove.photos.picture import Cell
    from dove.protocol import Tokenizer

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
DEFAULT_LENGTHS = (4, 16, 64)
MOST_ROWS = 64  # Largest number of images in the picture; the table and the JSON file have all


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


def run(options: ReconstructOptions) -> None:
    """Rebuild every readable image and write what was asked for."""
    from dove.commands.reconstruct_tiles import reconstruct_tiles
    from dove.data.images import open_images, summarise_unreadable
    from dove.lengths import parse_length_policy
    from dove.query.tokenizer import require_queries
    from dove.runtime import load_model, save_outputs

    check_options(options)
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
            hidden = path == options.output and outcome.shown < len(outcome.results)
            shown = f" (the first {outcome.shown} images)" if hidden else ""
            print(f"wrote {path}{shown}")
    if outcome.unreadable:
        raise UserError(summarise_unreadable(outcome.unreadable, len(dataset)))


def check_options(options: ReconstructOptions) -> None:
    """Refuse options that cannot work, before the model is loaded."""
    from dove.commands.reconstruct_tiles import require_plots

    if options.output.suffix.lower() not in PICTURE_SUFFIXES:
        raise UserError(f"--output {options.output}: a picture's name ends in {', '.join(PICTURE_SUFFIXES)}")
    for path in (options.output, options.json):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; pass the name of a file to write")
    if options.max_side is not None and not options.tile:
        raise UserError(f"--max-side {options.max_side} has no effect without --tile; add it or leave both out")
    if options.max_side is not None and options.max_side < 1:
        raise UserError(f"--max-side {options.max_side} must be at least 1 pixel")
    if options.tile:
        require_plots()


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


def picture_row(images: Sequence["Image"], result: dict[str, Any]) -> "list[Cell]":
    """Make the row of an original and its reconstructions with captions."""
    from dove.photos.picture import Cell

    captions = [Path(result["path"]).name]
    for row in result["rows"]:
        prefix = "" if row["num_tokens"] == row["length"] else f"{row['num_tokens']}: "
        captions.append(f"{prefix}{count_tokens(row['length'])}, {row['psnr']:.1f} dB")
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
        lines += [
            (result["path"], str(row["num_tokens"]), table_tokens(row["length"], result), f"{row['psnr']:.2f} dB")
            for row in result["rows"]
        ]
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


def table_tokens(length: int, result: dict[str, Any]) -> str:
    """Format a number of tokens; for a photo in tiles also the mean of its tiles."""
    return f"{length} ({length / result['tiles']:.1f} a tile)" if "tiles" in result else str(length)


def count_tokens(number: int) -> str:
    """Format a number of tokens, as in "1 token" and "2 tokens"."""
    return f"{number} token{'' if number == 1 else 's'}"
