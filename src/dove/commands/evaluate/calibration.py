"""``dove evaluate calibration``: predicted against measured quality."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from dove.errors import UserError
from dove.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(EvaluationOptions):
    """Compare the quality that a model foresees with what it reaches, and the policies that trust it with others.

    Writes calibration.json, .csv (a row for each measured length: predicted and measured PSNR, mean absolute error and
    correlation; a row for each policy: "budget n" beside "fixed n" and "known n", which spends by the measured errors)
    and calibration.png. ``share_of_known`` is the part of the gain of "known n" over "fixed n" that "budget n" gets.
    """

    name = "calibration"

    lengths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
    """Numbers of tokens to measure at, besides 1 and all; errors in between are interpolated for "known n"."""
    psnr: Annotated[tuple[float, ...], tyro.conf.arg(metavar="DB...")] = (20.0, 22.0, 24.0, 26.0, 28.0)
    """Values of x for psnr>=x and its search by decoding."""
    budgets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="N...")] = (4.0, 8.0, 16.0, 32.0)
    """Means of n tokens over all the images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(value > 0 for value in self.psnr):
            raise UserError("--psnr takes decibels above 0")


def run(options: CalibrationOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.calibration import calibrate, plot_calibration, summarise
    from dove.evaluation.report import Evaluation, rows_to_text

    evaluation = Evaluation(options)
    subjects, images = evaluation.load()
    studies = [
        calibrate(
            subject,
            images,
            lengths=options.lengths,
            psnr=options.psnr,
            budgets=options.budgets,
            batch_size=options.batch_size,
        )
        for subject in subjects
    ]
    rows = [row for study in studies for row in summarise(study)]
    print(rows_to_text([{key: value for key, value in row.items() if key != "kind"} for row in rows]))
    evaluation.finish({"rows": rows}, {"calibration.png": plot_calibration(studies)})
