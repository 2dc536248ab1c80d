"""``dove evaluate probe``: classification from frozen features."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.errors import UserError
from dove.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from dove.evaluation.datasets import LabelledImages


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(EvaluationOptions):
    """Train a small classifier on frozen features and test it.

    --kind mlp: an MLP on the tokens, at several lengths (Figure 5). --kind linear: one linear layer on each hidden layer of
    the token generator (Table 5), its penalty and the best layer chosen on a part of the training images. Features are
    the mean and the maximum over an image's vectors. Known data sets: cifar10, cifar100, dtd, fgvc-aircraft, food101,
    stl10, sun397, imagenet100; their files are looked for in the folder data (or DOVE_DATA) as NAME-train.parquet and
    NAME-test.parquet, then on the hub. Features are kept in ~/.cache/dove (or DOVE_CACHE), so that a second run is
    quick. Writes probe.json, .csv and .png.
    """

    name = "probe"

    kind: Literal["mlp", "linear"] = "mlp"
    """The classifier, and with it what is probed."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")]
    """Images to test on: a known name, labelled parquet, a folder of class folders, or a hub id owner/name:split."""
    train_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")] = ()
    """Images to train on, likewise; by default those of the known name that --data gives."""
    train_limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """At most so many training images, drawn at random by the seed; --limit does the same for test images."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|auto|...")] = ()
    """Lengths of the tokens that are probed; by default powers of two up to the model's capacity, and auto."""
    layer: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|all|latents|tokens|patches")] = ()
    """With --kind linear: hidden layers by number, all of them, the VQGAN's latents, tokens, patches of raw pixels; by
    default all. Models without hidden layers are probed on their tokens."""
    image_column: str | None = None
    """Column of the images in parquet and hub data; by default image."""
    label_column: str | None = None
    """Column of the labels; by default label. Class folders need none."""


def run(options: ProbeOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.common import load_subjects
    from dove.evaluation.datasets import require_known_classes, require_learnable
    from dove.evaluation.feature_cache import TOKENS
    from dove.evaluation.probe import best_layers, evaluate_probe, feature_sources, majority_share
    from dove.evaluation.probe_plots import plot_by_layer, plot_by_length
    from dove.evaluation.report import EvaluationRun, rows_to_text

    evaluation = EvaluationRun(options)
    if options.kind == "mlp" and options.layer:
        raise UserError("--layer is for --kind linear; --kind mlp probes tokens, at the lengths of --num-tokens")
    evaluation.subjects = load_subjects(options.model, options.device)
    sources = [feature_sources(one, options.kind, options.num_tokens, options.layer) for one in evaluation.subjects]
    if options.num_tokens and not any(source.layer == TOKENS for source in itertools.chain(*sources)):
        raise UserError("--num-tokens has no effect on hidden layers; leave it out, or add --layer tokens")
    train, test = load_data(options)
    evaluation.data = {"train": train.images, "test": test.images}
    require_learnable(list(train.classes.values()))
    require_known_classes(train, test)
    rows: list[dict[str, Any]] = []
    for subject, probed in zip(evaluation.subjects, sources, strict=True):
        rows += evaluate_probe(
            subject, probed, train, test, kind=options.kind, batch_size=options.batch_size, seed=options.seed
        )
    print(rows_to_text(rows))
    majority = majority_share(test)
    report: dict[str, Any] = {"kind": options.kind, "unit": "top-1 %", "largest_class": majority, "rows": rows}
    if options.kind == "linear":
        report["best_layers"] = best_layers(rows)
        print(*map(describe_best, report["best_layers"]), sep="\n")
    picture = (plot_by_length if options.kind == "mlp" else plot_by_layer)(rows, majority)
    evaluation.finish(report, {"probe.png": picture})


def load_data(options: ProbeOptions) -> "tuple[LabelledImages, LabelledImages]":
    """Load training and test images."""
    from dove.evaluation.datasets import load_labelled, locate

    columns = (options.image_column, options.label_column)
    test = locate(options.data, "test", *columns)
    train = locate(options.train_data or options.data, "train", *columns)
    if train == test and not options.train_data:
        raise UserError(
            f"--data {' '.join(options.data)} gives images to test on; pass --train-data with images to train on"
        )
    return (
        load_labelled(train, "train", limit=options.train_limit, seed=options.seed),
        load_labelled(test, "test", limit=options.limit, seed=options.seed),
    )


def describe_best(best: dict[str, Any]) -> str:
    """Describe the best layer in one line."""
    lucky = best["best_on_test"]
    return (
        f"{best['model']} on {best['dataset']}: best layer by validation {best['layer']}, top-1 {best['top1']:.2f}% "
        f"(best layer chosen on the test images, which overstates: {lucky['layer']}, {lucky['top1']:.2f}%)"
    )
