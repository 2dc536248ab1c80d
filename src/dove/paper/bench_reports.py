"""Evaluations of a comparison: one report of each kind for a row, kept while its model and its question stay the same."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from dove.errors import UserError
from dove.paper.bench import Comparison, Row, load_rows, squeezenet_file
from dove.paper.checks import refuse_training_images
from dove.paper.models import Step

LENGTHS = ("1", "4", *map(str, range(8, 65, 8)), "auto")
"""Numbers of tokens whose reconstructions are measured, for those rows that have them."""
PROBED = ("8", "16", "32", "64")
STAMP = "asked.json"
LEAST_IMAGES = 513  # One more than SqueezeNet has features


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Measure every trained row of a comparison; reports that are there for the same model and question are kept.

    Writes to the folder reports in --bench: reconstructions, lengths and linear probes of each row, the speed of all from one
    interleaved run, and training.png.
    """

    comparison: Annotated[Comparison, tyro.conf.Positional] = "bench"
    """The comparison that `dove paper train` trained."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")] = ()
    """Images that were not trained on."""
    limit: int = 2000
    """Greatest number of them, drawn at random; at least 513."""
    probe_train: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")] = ()
    """Labelled images for linear probes, such as cifar10-train.parquet; without them there are no probes."""
    probe_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")] = ()
    """Labelled images to test the probes on."""
    probe_limit: int | None = None
    """Greatest number of images to train the probes on; by default all."""
    squeezenet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0 weights; without it, the file that DOVE_SQUEEZENET names in the environment."""
    bench: Path | None = None
    """Folder of the trainings, one for each seed; by default results/bench or results/ablation."""
    only: tuple[str, ...] = ()
    """Names of the rows to measure, without the speeds, which are measured of all rows together; by default all that are
    trained."""

    def __post_init__(self) -> None:
        if bool(self.probe_train) != bool(self.probe_data):
            raise UserError(
                "linear probes need both --probe-train and --probe-data; pass both, or none to leave them out"
            )
        if self.limit < LEAST_IMAGES:
            raise UserError(f"--limit {self.limit} is too few for Frechet distances; pass at least {LEAST_IMAGES}")

    @property
    def trainings(self) -> Path:
        """Folder of the trainings."""
        return self.bench or Path("results") / self.comparison

    @property
    def folder(self) -> Path:
        """Folder of the reports."""
        return self.trainings / "reports"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A ``dove evaluate`` of some rows."""

    name: str  # Folder below that of all reports
    rows: list[Row]
    arguments: list[str]  # Arguments of ``dove``, without the models and the folder

    def command(self, reports: EvaluateOptions) -> list[str]:
        """Complete arguments of ``dove``."""
        models = [f"{row.label}={row.model(reports.trainings)}" for row in self.rows]
        output = ["--output", str(reports.folder / self.name)]
        return [*self.arguments[:2], "--model", *models, *self.arguments[2:], *output]

    def asked(self, reports: EvaluateOptions) -> dict[str, Any]:
        """Describe what is measured, for comparison with an earlier run."""
        from dove.checkpoint import checkpoint_sha256

        models = {str(row.label): checkpoint_sha256(row.model(reports.trainings)) for row in self.rows}
        return {"arguments": self.arguments, "models": models}

    def done(self, reports: EvaluateOptions) -> bool:
        """Tell whether this very question to these very models has been answered."""
        folder = reports.folder / self.name
        try:
            stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return (folder / f"{self.arguments[1]}.json").is_file() and bool(stamp == self.asked(reports))


def list_evaluations(reports: EvaluateOptions) -> Iterator[Evaluation]:
    """List the evaluations of the trained rows; the last ones depend on the reports of those before them."""
    listed = load_rows(reports.only, reports.comparison)
    rows = [row for row in listed if row.label and row.trained(reports.trainings)]
    photos = ["--data", *reports.data, "--limit", str(reports.limit)]
    squeezenet = squeezenet_file(reports.squeezenet)
    networks = ["--perceptual-weights", str(squeezenet)] if squeezenet else []
    for row in rows:
        arguments = ["evaluate", "reconstruction", *photos, "--num-tokens", *LENGTHS, *networks]
        yield Evaluation(name=f"{row.name}/reconstruction", rows=[row], arguments=arguments)
        if row.adaptive:
            yield Evaluation(name=f"{row.name}/lengths", rows=[row], arguments=["evaluate", "lengths", *photos])
        if reports.probe_data:
            sources = ["--train-data", *reports.probe_train, "--data", *reports.probe_data]
            sources += ["--train-limit", str(reports.probe_limit)] if reports.probe_limit is not None else []
            asked = ["--kind", "linear", *sources, "--layer", "all", "tokens", "--num-tokens", *PROBED]
            yield Evaluation(name=f"{row.name}/probe", rows=[row], arguments=["evaluate", "probe", *asked])
    if (mean := mean_length(reports)) and (beside := [row for row in rows if row.name == "dove-plus"]):
        arguments = ["evaluate", "reconstruction", *photos, "--num-tokens", f"budget {mean:.1f}", *networks]
        yield Evaluation(name="dove-plus/length-rule", rows=beside, arguments=arguments)
    if rows and not reports.only:  # one run of all rows, or their speeds could not be compared
        yield Evaluation(name="speed", rows=rows, arguments=["evaluate", "speed"])


def mean_length(reports: EvaluateOptions) -> float | None:
    """Read the mean number of tokens that DOVE's own rule gives; None where it has not been measured."""
    file = reports.folder / "dove" / "reconstruction" / "reconstruction.json"
    if not file.is_file():
        return None
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return next((row["mean_length"] for row in rows if row["num_tokens"] == "auto"), None)


def measure_bench(reports: EvaluateOptions, run: Callable[[list[str]], int]) -> int:
    """Make the reports that are not there, past those that fail, and return 1 if one does, else 0."""
    if not reports.data:
        raise UserError("a comparison needs --data with images that were not trained on")
    from dove.runtime import save_outputs

    failed, count = [], 0
    for evaluation in list_evaluations(reports):
        count += 1
        if evaluation.done(reports):
            print(f"{evaluation.name}: done")
            continue
        command = evaluation.command(reports)
        refuse_training_images([Step(arguments=command)])
        print(f"{evaluation.name}: running", flush=True)
        if run(command):
            failed.append(evaluation.name)
            continue
        stamp = json.dumps(evaluation.asked(reports)).encode()
        save_outputs({reports.folder / evaluation.name / STAMP: stamp})
    if not count:
        raise UserError(f"nothing is trained in {reports.trainings}; run dove paper train {reports.comparison} first")
    if failed:
        print(f"{len(failed)} of {count} evaluations failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0
