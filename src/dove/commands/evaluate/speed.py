"""``dove evaluate speed``: images per second and operations by number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from dove.evaluation.options import EvaluationOptions
from dove.flags import require_least

PRINTED = {
    "encode img/s": ("encode_images_per_second", 1.0),
    "decode img/s": ("decode_images_per_second", 1.0),
    "against VQGAN": ("encode_speed_against_vqgan", 1.0),
    "encode GFLOP": ("encode_flops", 1e9),
    "decode GFLOP": ("decode_flops", 1e9),
    "in 7B LM: TFLOP": ("lm_flops", 1e12),
    "T multiply-adds": ("lm_multiply_adds", 1e12),
}  # Columns of the table on the terminal: the report's column and its unit


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(EvaluationOptions):
    """Measure how many images a second are encoded and decoded, and count operations, alone and in a 7B language model.

    Writes speed.json, speed.csv and speed.png. Operations are those of one image: matrix products, convolutions and
    attention, as FLOPs (two for each multiply-add) and, with the encoder and a language model of Vicuna-7B's size that reads
    image and question, also as multiply-adds, which is what the paper's Table 4 counts. Each DOVE model is followed by its
    VQGAN alone.
    """

    name = "speed"

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")] = ()
    """Images of any kind; by default noise, which is as quick. Only auto depends on them."""
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...")] = ("dove-tiny",)
    """Checkpoints as everywhere; also presets such as dove-base, which get random weights: as quick as trained ones."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto...")] = ()
    """Numbers of tokens; by default an eighth, a quarter, a half and all of the model's capacity."""
    repetitions: int = 7
    """Measurements of each model and length, after a warm-up; the median is reported."""
    text_tokens: int = 112
    """Text tokens of a question to the language model."""
    count_only: bool = False
    """Count operations without running anything: needs no memory, so any preset goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_least("--repetitions", self.repetitions)
        require_least("--text-tokens", self.text_tokens, 0)


def run(options: SpeedOptions) -> None:
    """Measure, count and write the report."""
    import torch

    from dove.evaluation import speed
    from dove.evaluation.common import Images
    from dove.evaluation.plots import plot_speed
    from dove.evaluation.report import EvaluationRun
    from dove.runtime import select_device

    evaluation = EvaluationRun(options)
    device = speed.META if options.count_only else select_device(options.device)
    subjects = speed.load_speed_subjects(options.model, device)
    entries = [entry for subject in subjects for entry in speed.make_entries(subject, options.num_tokens)]
    batch_size = min(options.batch_size, options.limit or options.batch_size)
    images = Images(options.data, limit=batch_size, seed=options.seed) if options.data else None
    batches = speed.speed_images(images, entries, batch_size, options.seed)
    measured: list[dict[str, float]] = [{} for _ in entries]
    if not options.count_only:
        measured = speed.time_entries(entries, batches, options.repetitions)
    language_model = speed.make_language_model()
    rows = speed.evaluate_speed(entries, measured, language_model=language_model, text_tokens=options.text_tokens)
    print(printed_table(rows))
    report = {
        "rows": rows,
        "batch_size": batch_size,
        "repetitions": 0 if options.count_only else options.repetitions,
        "text_tokens": options.text_tokens,
        "threads": torch.get_num_threads(),
    }
    evaluation.subjects, evaluation.data = subjects, {"data": images} if images else {}
    evaluation.finish(report, {"speed.png": plot_speed(rows)})


def printed_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in units for reading."""
    from dove.evaluation.report import rows_to_text

    return rows_to_text(
        [
            {name: row[name] for name in ("model", "weights", "num_tokens", "mean_length")}
            | {title: row[column] and row[column] / unit for title, (column, unit) in PRINTED.items()}
            for row in rows
        ]
    )
