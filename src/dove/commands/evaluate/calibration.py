"""``dove evaluate calibration``: predicted against measured quality."""

from dove.evaluation.options import CalibrationOptions


def run(options: CalibrationOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.calibration import calibrate, plot_calibration, summarise
    from dove.evaluation.report import EvaluationRun, rows_to_text

    evaluation = EvaluationRun(options)
    subjects, images = evaluation.load()
    studies = [calibrate(subject, images, options) for subject in subjects]
    rows = [row for study in studies for row in summarise(study)]
    print(rows_to_text([{key: value for key, value in row.items() if key != "kind"} for row in rows]))
    evaluation.finish({"rows": rows}, {"calibration.png": plot_calibration(studies)})
