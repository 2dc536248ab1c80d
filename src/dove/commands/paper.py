"""``dove paper``: every table and figure of the paper as one command each."""

import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dove.errors import UserError
from dove.paper import Experiment, Plan, load_experiment, load_experiments
from dove.paper.bench import load_rows, trained_models

BENCH_MODELS = "{bench}"
"""In a plan's command: LABEL=FOLDER of every trained model of the bench."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """List the paper's tables and figures, and what of them cannot be run yet."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Rerun a table or figure of the paper, at its own scale or with the small shipped model."""

    name: Annotated[str, tyro.conf.Positional]
    """table2, figure6, ...; `dove paper list` has them all."""
    scale: Literal["paper", "tiny"] = "tiny"
    """paper trains and evaluates at the paper's size, on the data sets that it names; tiny takes minutes on a CPU."""
    data: Path | None = None
    """Folder with the data sets under the names that the command asks for; at tiny scale mostly any images."""
    output: Path = Path("results")
    """Folder for the results; each table and figure gets a folder of its own in it."""
    model: str | None = None
    """Evaluate this checkpoint instead of the scale's own, which at paper scale is trained first."""
    squeezenet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0 weights: adds perceptual_squeezenet and fd_squeezenet where reconstructions are measured."""
    bench: Path = Path("results/bench")
    """Folder of the trainings of `dove paper train`, for tables that compare systems."""
    dry_run: bool = False
    """Print the commands without running them."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train every system of the paper at a small size on equal data; what is trained is skipped, what was cut off goes on."""

    scale: Annotated[Literal["tiny"], tyro.conf.Positional] = "tiny"
    """64 px, 4.8 million parameters each."""
    data: str = ""
    """Training images: a folder, parquet, WebDataset shards, or a hub dataset id."""
    squeezenet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0 weights for the perceptual loss."""
    bench: Path = Path("results/bench")
    """Folder for the trainings, one folder each."""
    only: tuple[str, ...] = ()
    """Names of the trainings to run; by default all."""
    dry_run: bool = False
    """Print the commands without running them."""


Options = ListOptions | RunOptions | TrainOptions


def parse(arguments: Sequence[str]) -> Options:
    """Options of `dove paper list`, `dove paper run` or `dove paper train`."""
    kinds = (
        Annotated[ListOptions, tyro.conf.subcommand("list")]
        | Annotated[RunOptions, tyro.conf.subcommand("run")]
        | Annotated[TrainOptions, tyro.conf.subcommand("train")]
    )
    return tyro.cli(
        kinds,
        args=list(arguments),
        prog="dove paper",
        description="The paper's tables and figures, one command each.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def run(options: Options) -> int:
    """List the experiments, run one, or train what they compare.

    Raises:
        UserError: if there is no such experiment, it cannot be run yet, or data are missing.
    """
    if isinstance(options, RunOptions):
        return run_experiment(options)
    if isinstance(options, TrainOptions):
        return train_bench(options)
    print(table(load_experiments()))
    return 0


def table(experiments: Sequence[Experiment]) -> str:
    """Two lines for each experiment, what it is and what the paper found, and one for each part that is not there yet."""
    width = max(len(experiment.name) for experiment in experiments)
    lines = []
    for experiment in experiments:
        lines.append(f"{experiment.name:{width}}  {experiment.title}")
        lines.append(f"{'':{width}}  paper: {experiment.paper_line}")
        lines += [f"{'':{width}}  not yet: {part}" for part in experiment.not_yet]
    return "\n".join(lines)


def train_bench(options: TrainOptions) -> int:
    """Train the rows of the bench one after the other and return the exit status of the first that fails, or 0.

    Raises:
        UserError: without data or network weights, or for unknown names.
    """
    rows = load_rows()
    unknown = [name for name in options.only if name not in {row.name for row in rows}]
    if unknown:
        raise UserError(f"no training {', '.join(unknown)}; there are {', '.join(row.name for row in rows)}")
    if not options.data or options.squeezenet is None:
        raise UserError("the bench needs --data with training images and --squeezenet with SqueezeNet 1.0 weights")
    for row in rows:
        if options.only and row.name not in options.only:
            continue
        command = row.command(options.bench, options.data, options.squeezenet)
        print(f"$ dove {shlex.join(command)}", flush=True)
        # A process each: a training leaves its threads, its seeds and its accelerator settings behind.
        status = (
            0 if options.dry_run else subprocess.run([sys.executable, "-m", "dove", *command], check=False).returncode
        )
        if status:
            return status
    return 0


def run_experiment(options: RunOptions) -> int:
    """Run the commands one after the other and return the exit status of the first that fails, or 0.

    Raises:
        UserError: before anything is run, if it cannot work.
    """
    from dove.cli import main

    experiment = load_experiment(options.name)
    plan = experiment.scales[options.scale]
    print(f"{experiment.name}: {experiment.title}\npaper: {experiment.paper_line}")
    if not options.dry_run:
        check_data(experiment, plan, options)
    for command in filled_commands(plan, options):
        print(f"$ dove {shlex.join(command)}", flush=True)
        status = 0 if options.dry_run else main(command)
        if status:
            return status
    if experiment.paper_values:
        print(f"the paper's values ({experiment.paper.get('unit', 'as there')}):")
        print(textwrap.indent(experiment.paper_values, "  "))
    for part in experiment.not_yet:
        print(f"not yet: {part}")
    missing = trained_models(options.bench)[1]
    if BENCH_MODELS in [item for command in plan.commands for item in command] and missing:
        print(f"not trained in {options.bench}: {', '.join(missing)}; see dove paper train --help")
    return 0


def check_data(experiment: Experiment, plan: Plan, options: RunOptions) -> None:
    """Find the data that a plan reads.

    Raises:
        UserError: naming what is missing and what it should be.
    """
    if not plan.data:
        return
    needed = "; ".join(what if name == "." else f"{name} ({what})" for name, what in plan.data.items())
    if options.data is None:
        raise UserError(f"{experiment.name} at --scale {options.scale} needs --data DIR with {needed}")
    missing = [str(options.data / name) for name in plan.data if not (options.data / name).exists()]
    if missing:
        raise UserError(
            f"there is no {', '.join(missing)}; {experiment.name} at --scale {options.scale} needs --data with {needed}"
        )


def filled_commands(plan: Plan, options: RunOptions) -> list[list[str]]:
    """The plan's command lines with paths for their placeholders, training left out where a model is given.

    A nested list is optional: its arguments are left out where no value is given for its placeholder. The item
    ``BENCH_MODELS`` stands for all models of the bench that are trained.
    """
    values = {"data": str(options.data or "DATA"), "output": str(options.output)}
    values["model"] = options.model or plan.model.format(**values)
    given = values | ({"squeezenet": str(options.squeezenet)} if options.squeezenet else {})
    commands = plan.commands if options.model else [*plan.train, *plan.commands]
    filled = []
    for command in commands:
        arguments: list[str] = []
        for item in command:
            if item == BENCH_MODELS:
                arguments += trained_models(options.bench)[0]
                continue
            group = item if isinstance(item, list) else [item]
            if isinstance(item, str) or options.squeezenet:
                arguments += [argument.format(**given) for argument in group]
        filled.append(arguments)
    return filled
