"""``dove evaluate pca``: what hidden features tell apart."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from dove.evaluation.options import EvaluationOptions
from dove.flags import require_least


@dataclass(frozen=True, kw_only=True)
class PcaOptions(EvaluationOptions):
    """Colour images by the first three principal components of the token generator's hidden features, layer by layer.

    Writes pca.json and pca.csv with the variance that the components explain, and for each model a picture: the image, the
    VQGAN's latents, and each layer. The components are those of all positions of all images, so a colour means the same
    in all of them.
    """

    name = "pca"

    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = 256
    """At most so many images, drawn at random from the source by the seed."""
    shown: Annotated[int, tyro.conf.arg(metavar="N")] = 6
    """Images in the picture."""
    side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Scale images to so many pixels a side and read them in overlapping tiles; a multiple of the model's own side, which is
    the default. A map of a photo at 64 pixels has few cells."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_least("--shown", self.shown)
        require_least("--side", self.side)


def run(options: PcaOptions) -> None:
    """Compute the components and write the report."""
    from dove.evaluation.pca import evaluate_pca
    from dove.evaluation.report import EvaluationRun, rows_to_text
    from dove.photos.picture import encode_picture, side_by_side

    evaluation = EvaluationRun(options)
    subjects, images = evaluation.load()
    rows, pictures = [], {}
    for subject in subjects:
        found, cells = evaluate_pca(
            subject, images, batch_size=options.batch_size, shown=options.shown, side=options.side
        )
        rows += found
        pictures[f"pca{evaluation.suffix(subject.name)}.png"] = encode_picture(side_by_side(cells), ".png")
    print(rows_to_text(rows))
    evaluation.finish({"rows": rows}, pictures)
