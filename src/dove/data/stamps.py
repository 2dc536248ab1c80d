"""Captioned cut-outs from the folder of a stamp collection, as Debian's package tuxpaint-stamps-default installs it."""

import io
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dove.data.annotations import Conversion
from dove.data.progress_bar import ProgressBar
from dove.data.scenes import read_cutout
from dove.errors import UserError, replacing

LONGEST_SIDE = 96
SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "caption": pa.string(),
        "category": pa.string(),
        "name": pa.string(),
    }
)


def convert_stamps(folder: Path, output: Path) -> Conversion:
    """Write every PNG below a folder that has a caption, the first line of the .txt beside it, into one parquet table.

    Pictures are scaled down to a longest side of ``LONGEST_SIDE`` pixels and keep their transparency.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; pass the one in which the stamps' .png and .txt files lie")
    conversion, rows = Conversion(), []
    for path in ProgressBar(sorted(folder.rglob("*.png")), desc="stamps"):
        place = path.relative_to(folder)
        if not (caption := _caption(path.with_suffix(".txt"))):
            conversion.skip("pictures without a caption", str(place))
            continue
        try:
            picture = read_cutout(path, str(path))
        except UserError:
            conversion.skip("pictures that cannot be read", str(place))
            continue
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
        picture.save(encoded := io.BytesIO(), "PNG")
        image = {"bytes": encoded.getvalue(), "path": place.as_posix()}
        name = path.stem.replace("_", " ")
        rows.append({"image": image, "caption": caption, "category": place.parts[0], "name": name})
    if not rows:
        raise UserError(f"{folder} holds no .png with a caption in a .txt beside it; pass the folder of the stamps")
    conversion.images = conversion.queries = len(rows)
    with replacing(output) as beside:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), beside)
    return conversion


def _caption(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    return ""
