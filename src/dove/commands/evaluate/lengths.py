"""``dove evaluate lengths``: how long sequences come out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from dove.evaluation.common import Images, Subject


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
    from dove.evaluation.lengths import picture_extremes, plot_lengths, study_lengths, summarise
    from dove.evaluation.report import evaluate, rows_to_text

    def measure(subjects: "list[Subject]", images: "Images") -> tuple[dict[str, Any], dict[str, bytes]]:
        studies = []
        for subject in subjects:
            fixed = powers_of_two(subject.tokenizer.max_tokens)
            studies.append(study_lengths(subject, images, options.num_tokens, fixed, options.batch_size))
        rows = [summarise(study) for study in studies]
        shown = ("model", "images", "mean", "pearson", "pearson_log", "spearman")
        print(rows_to_text([{name: row[name] for name in shown} | row["quantiles"] for row in rows]))
        pictures = {"lengths.png": plot_lengths(studies), "lengths-examples.png": picture_extremes(studies)}
        return {"rows": rows}, pictures

    evaluate(options, measure)


def powers_of_two(capacity: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the capacity."""
    return (*(2**power for power in range(capacity.bit_length()) if 2**power < capacity), capacity)
