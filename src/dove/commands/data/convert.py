"""``dove data convert``: annotations of published data sets as queries with boxes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DataConvertOptions:
    """Make one parquet file of queries with boxes, for training a Q-DOVE, of a published data set.

    Visual Genome: region_descriptions.json or question_answers.json. Open Images: a *-vrd.csv and, as --classes, its
    class-descriptions*.csv; relations become "a cup on a table". COCO: an instances_*.json. reference: a list of entries with
    image_id, question, answer and bounding_box. stamps: no annotations, as --images the folder of captioned cut-outs, such as
    Debian's tuxpaint-stamps-default installs in /usr/share/tuxpaint/stamps; gives a table for --queries.stamps.
    """

    kind: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="visual-genome|open-images|coco|reference|stamps")]
    """Whose format the annotations have."""
    annotations: Path | None = None
    """The file of annotations; none for stamps."""
    images: Path
    """Folder of the images, also in folders below it; each is named by its id."""
    output: Path
    """The parquet file."""
    classes: Path | None = None
    """Open Images' names of its classes."""
    part: Literal["all", "train", "test"] = "all"
    """All images; or one in fifty (test), by a hash of its id, so that files about the same images agree; or the rest
    (train)."""


def run(options: DataConvertOptions) -> None:
    """Convert and say how much."""
    from dove.data.annotations import convert
    from dove.data.stamps import convert_stamps

    if options.kind == "stamps":
        if options.annotations or options.classes or options.part != "all":
            raise UserError("stamps are converted from --images alone; leave --annotations, --classes and --part out")
        print(f"{options.output}: {convert_stamps(options.images, options.output).summary('captions of')}")
        return
    if options.annotations is None:
        raise UserError(f"{options.kind} needs --annotations with the file of annotations")
    conversion = convert(
        options.kind, options.annotations, options.images, options.output, classes=options.classes, part=options.part
    )
    print(f"{options.output}: {conversion.summary()}")
