"""``dove evaluate lengths``: how long sequences come out."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from dove.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class LengthsOptions(EvaluationOptions):
    """Count the tokens that images get, and set them against the images' complexity (Figure 6).

    Writes lengths.json, .csv, .png (histogram, loss against length, length against Laplacian variance) and
    lengths-examples.png (the simplest and the most complex images with their lengths).
    """

    name = "lengths"

    num_tokens: Annotated[str, tyro.conf.arg(metavar="auto|...")] = "auto"
    """The policy under study."""


def run(options: LengthsOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.lengths import plot_lengths, study_lengths, summarise
    from dove.evaluation.report import EvaluationRun, rows_to_text
    from dove.photos.picture import encode_picture, side_by_side

    evaluation = EvaluationRun(options)
    subjects, images = evaluation.load()
    studies = [study_lengths(subject, images, options.num_tokens, options.batch_size) for subject in subjects]
    rows = [summarise(study) for study in studies]
    shown = ("model", "images", "mean", "pearson", "pearson_log", "spearman")
    print(rows_to_text([{name: row[name] for name in shown} | row["quantiles"] for row in rows]))
    examples = side_by_side([row for study in studies for row in study.extremes])
    pictures = {"lengths.png": plot_lengths(studies), "lengths-examples.png": encode_picture(examples, ".png")}
    evaluation.finish({"rows": rows}, pictures)
