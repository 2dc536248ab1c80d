"""``dove evaluate rate``: bits per image against quality, beside JPEG and WebP."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from dove.errors import UserError
from dove.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class RateOptions(EvaluationOptions):
    """Round tokens to levels, price them as an arithmetic coder would, and compare with JPEG and WebP files.

    Writes rate.json, .csv and rate.png. The levels' distribution is fitted to training images, never to the images that
    are measured.
    """

    name = "rate"

    train_data: str = ""
    """Images that the distribution of the levels is fitted to (folder, tar, parquet or hub data set)."""
    train_limit: int = 500
    """At most so many of them, drawn at random."""
    num_tokens: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (8, 16, 32, 64)
    fineness: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X...")] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    """Steps of the levels, measured in the picture: the root of summed squared pixels in [-1, 1]."""
    qualities: Annotated[tuple[int, ...], tyro.conf.arg(metavar="Q...")] = (5, 10, 20, 35, 50, 70, 85, 95)
    """Quality settings of JPEG and WebP."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_data:
            raise UserError("no training images are given; pass --train-data")
        if not all(value > 0 for value in self.fineness):
            raise UserError("--fineness takes steps above 0")
        if not all(1 <= value <= 100 for value in self.qualities):
            raise UserError("--qualities are from 1 to 100")


def run(options: RateOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.common import Images
    from dove.evaluation.rate import plot_rate, rate_of_files, rate_of_tokens
    from dove.evaluation.report import Evaluation, rows_to_text

    evaluation = Evaluation(options)
    subjects, images = evaluation.load()
    training = Images(options.train_data, limit=options.train_limit, seed=options.seed)
    rows = []
    for subject in subjects:
        rows += rate_of_tokens(
            subject,
            training,
            images,
            lengths=options.num_tokens,
            fineness=options.fineness,
            batch_size=options.batch_size,
            seed=options.seed,
        )
    for size in sorted({subject.tokenizer.image_size for subject in subjects}):
        rows += rate_of_files(images, size, options.qualities, options.batch_size)
    print(rows_to_text(rows))
    evaluation.finish({"rows": rows, "fitted_to": training.origin()}, {"rate.png": plot_rate(rows)})
