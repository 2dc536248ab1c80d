"""``dove reconstruct``: what is left of an image at several numbers of tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dove.data.dataset import ImageDataset, Record, Unreadable
    from dove.lengths import LengthPolicy
    from dove.picture import Cell
    from dove.reconstruction import Reconstructions
    from dove.tokenizer import Dove

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_ROWS = 64
"""Images in the picture; the table and the JSON file have all."""


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """Rebuild images from several numbers of tokens: a table, a picture of them side by side, a JSON file."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES...")]
    """Image files, folders, patterns, parquet files, .tar shards or hub datasets."""
    model: str = "dove-tiny"
    """A shipped checkpoint, a checkpoint folder or a hub id."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto|...")] = ("4", "16", "64", "auto")
    """Numbers of tokens: a number, auto (up to each image's own end), auto-1.5 (more of them), auto+1.5 (fewer),
    "max 32" (auto, but at most 32)."""
    query: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What the tokens shall describe first, for a Q-DOVE such as qdove-tiny; null asks for the whole image."""
    output: Path = Path("reconstruction.png")
    """Where the picture goes: .png, .jpg or .webp."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the numbers go: one object for each image with its path, query and rows of num_tokens, length and psnr."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first so many images."""
    image_column: str = "image"
    """Column of parquet files and hub datasets that holds the images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    seed: int = 0
    """Seed of whatever a model draws; dove-tiny draws nothing."""


def run(options: ReconstructOptions) -> None:
    """Rebuild every readable image and write what was asked for.

    Raises:
        UserError: for options that cannot work, before anything is computed; for unreadable images, after all others
            are done.
    """
    import torch

    from dove.commands.runtime import load_model, save_outputs
    from dove.data.images import open_images, summarise_unreadable
    from dove.lengths import parse_length_policy

    check_options(options)
    dataset = open_images(
        options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
    )
    model = load_model(options.model, options.device)
    require_queries(model, options.query)
    policies = [parse_length_policy(request, model.config.max_tokens) for request in options.num_tokens]
    torch.manual_seed(options.seed)
    outcome = reconstruct_all(model, dataset, policies, options.query)
    if outcome.results:
        outputs = make_outputs(outcome, options)
        save_outputs(outputs)
        print(table(outcome.results))
        for path in outputs:
            shown = f" (the first {MOST_ROWS} images)" if path == options.output and outcome.hidden else ""
            print(f"wrote {path}{shown}")
    if outcome.unreadable:
        raise UserError(summarise_unreadable(outcome.unreadable, len(dataset)))


def require_queries(model: "Dove", query: str | None) -> None:
    """Whether the model can be asked.

    Raises:
        UserError: for a query to a model that takes none, or an empty one.
    """
    from dove.models.text import is_null
    from dove.qdove import QDove

    if not is_null(query) and not isinstance(model, QDove):
        raise UserError(
            "this model takes no queries; leave --query out or pass --model with a Q-DOVE such as qdove-tiny"
        )


def check_options(options: ReconstructOptions) -> None:
    """Tell what cannot work before the model is loaded."""
    if options.output.suffix.lower() not in PICTURE_SUFFIXES:
        raise UserError(f"--output {options.output}: a picture's name ends in {', '.join(PICTURE_SUFFIXES)}")
    for path in (options.output, options.json):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; pass the name of a file to write")
    if not options.num_tokens:
        raise UserError("no number of tokens is given; pass for example --num-tokens 16 auto")


@dataclass
class Outcome:
    """What became of the images of a source."""

    results: list[dict[str, Any]] = field(default_factory=list)
    """The objects of the JSON file."""
    rows: "list[list[Cell]]" = field(default_factory=list)
    """The first ``MOST_ROWS`` rows of the picture."""
    unreadable: "list[Unreadable]" = field(default_factory=list)

    @property
    def hidden(self) -> int:
        """Images that are not in the picture."""
        return len(self.results) - len(self.rows)


def reconstruct_all(
    model: "Dove", dataset: "ImageDataset", policies: "Sequence[LengthPolicy]", query: str | None
) -> Outcome:
    """Rebuild every image of a source at every length."""
    from tqdm import tqdm

    from dove.data.dataset import Unreadable
    from dove.processor import ImageProcessor
    from dove.reconstruction import reconstruct

    processor = ImageProcessor(model.config.vqgan.image_size)
    outcome = Outcome()
    for record in tqdm(dataset, total=len(dataset), unit="image", disable=None, leave=False):
        if isinstance(record, Unreadable):
            outcome.unreadable.append(record)
            continue
        pixels = processor.preprocess(record.image)
        rebuilt = reconstruct(model, pixels, policies, query)
        outcome.results.append(describe(record, policies, rebuilt, query))
        if len(outcome.rows) < MOST_ROWS:
            images = processor.to_pil(pixels) + processor.to_pil(rebuilt.images)
            outcome.rows.append(picture_row(images, outcome.results[-1]))
    return outcome


def describe(
    record: "Record", policies: "Sequence[LengthPolicy]", rebuilt: "Reconstructions", query: str | None
) -> dict[str, Any]:
    """The JSON object of one image. Its path is that of the file, or in other sources the record's key."""
    file = record.metadata.get("path") or ""
    numbers = zip(policies, rebuilt.lengths, rebuilt.psnr, strict=True)
    return {
        "path": file if file.endswith(record.key) else record.key,
        "query": query,
        "rows": [
            {"num_tokens": int(text) if (text := str(policy)).isdigit() else text, "length": length, "psnr": quality}
            for policy, length, quality in numbers
        ],
    }


def picture_row(images: "Sequence[Image]", result: dict[str, Any]) -> "list[Cell]":
    """The original and its reconstructions with what is written below them."""
    from dove.picture import Cell

    captions = [Path(result["path"]).name]
    for row in result["rows"]:
        prefix = "" if row["num_tokens"] == row["length"] else f"{row['num_tokens']}: "
        captions.append(f"{prefix}{count_tokens(row['length'])}, {row['psnr']:.1f} dB")
    return [Cell(image, caption) for image, caption in zip(images, captions, strict=True)]


def make_outputs(outcome: Outcome, options: ReconstructOptions) -> dict[Path, bytes]:
    """Contents of the files that were asked for."""
    from dove.picture import encode_picture, side_by_side

    outputs = {options.output: encode_picture(side_by_side(outcome.rows), options.output.suffix)}
    if options.json is not None:
        outputs[options.json] = (json.dumps(outcome.results, indent=2, ensure_ascii=False) + "\n").encode()
    return outputs


def table(results: "Sequence[dict[str, Any]]") -> str:
    """One line for each image and number of tokens; for several images also their means."""
    lines = [("image", "num_tokens", "tokens", "PSNR")]
    for result in results:
        lines += [
            (result["path"], str(row["num_tokens"]), str(row["length"]), f"{row['psnr']:.2f} dB")
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


def count_tokens(number: int) -> str:
    """ "1 token", "2 tokens"."""
    return f"{number} token{'' if number == 1 else 's'}"
