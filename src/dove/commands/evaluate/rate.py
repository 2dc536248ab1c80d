"""``dove evaluate rate``: bits per image against quality, beside JPEG and WebP."""

from dove.evaluation.options import RateOptions


def run(options: RateOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.common import Images
    from dove.evaluation.rate import plot_rate, rate_of_files, rate_of_tokens
    from dove.evaluation.report import EvaluationRun, rows_to_text

    evaluation = EvaluationRun(options)
    subjects, images = evaluation.load()
    training = Images(options.train_data, limit=options.train_limit, seed=options.seed)
    rows = [row for subject in subjects for row in rate_of_tokens(subject, training, images, options)]
    for size in sorted({subject.tokenizer.image_size for subject in subjects}):
        rows += rate_of_files(images, size, options.qualities, options.batch_size)
    print(rows_to_text(rows))
    evaluation.finish({"rows": rows, "fitted_to": training.origin()}, {"rate.png": plot_rate(rows)})
