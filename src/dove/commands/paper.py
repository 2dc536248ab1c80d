"""``dove paper``: every table and figure of the paper as one command each."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from dove.errors import UserError
from dove.flags import parse_flags, require_least
from dove.paper import REMARKS, Experiment, load_experiment, load_experiments, rehearsal
from dove.paper.bench import load_rows, trained_models
from dove.paper.bench_reports import EvaluateOptions, measure_bench
from dove.paper.bench_run import TrainOptions, run_bench
from dove.paper.checks import check_data, refuse_training_images
from dove.paper.filling import BENCH_MODELS, RunOptions, needed_by, steps_of
from dove.paper.launch import command_line, run_step
from dove.paper.models import Step, with_needs


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """List the paper's tables and figures, and what of them cannot be run yet."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class ClaimsOptions:
    """Write a page that says of each claim of the paper whether it holds, does not hold or cannot be told here."""

    reports: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")] = ()
    """Folders of reports, one for each seed, such as results/bench/reports; without any, nothing counts as measured."""
    output: Path = Path("claims.md")
    """The page, in Markdown."""
    json: bool = False
    """Print the verdicts as JSON."""


Options = (
    Annotated[ListOptions, tyro.conf.subcommand("list")]
    | Annotated[RunOptions, tyro.conf.subcommand("run")]
    | Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[ClaimsOptions, tyro.conf.subcommand("claims")]
)


def parse(arguments: Sequence[str]) -> Options:
    """Options of `dove paper list`, `run`, `train`, `evaluate` or `claims`."""
    return parse_flags(
        Options,
        arguments=arguments,
        prog="dove paper",
        description="The paper's tables and figures, one command each.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def run(options: Options) -> int:
    """List the experiments, run one, train or measure what they compare, or write down what came out."""
    if isinstance(options, RunOptions):
        return run_experiments(options)
    if isinstance(options, TrainOptions):
        return run_bench(options)
    if isinstance(options, EvaluateOptions):
        from dove.cli import main
        from dove.paper.bench_curves import write_curves

        status = measure_bench(options, main)
        write_curves(load_rows(comparison=options.comparison), options.trainings, options.folder)
        return status
    if isinstance(options, ClaimsOptions):
        return write_claims(options)
    print(json.dumps([describe(item) for item in load_experiments()], indent=2) if options.json else table())
    return 0


def table() -> str:
    """Write two lines for each experiment, what it is and what the paper found, and one for each part that is not there yet."""
    experiments = load_experiments()
    width = max(len(experiment.name) for experiment in experiments)
    lines = []
    for experiment in experiments:
        lines.append(f"{experiment.name:{width}}  {experiment.title}")
        lines.append(f"{'':{width}}  {experiment.source.removeprefix('the ')}: {experiment.paper_line}")
        lines += [f"{'':{width}}  not yet: {part}" for part in missing_parts(experiment, "paper")]
    lines += [f"{name:{width}}  measures nothing: {remark}" for name, remark in REMARKS.items()]
    lines += [f"{'rehearsal':{width}}  not yet: {part}" for part in rehearsal.NOT_REHEARSED]
    return "\n".join(lines)


def describe(experiment: Experiment) -> dict[str, Any]:
    """Make the JSON object of an experiment."""
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "finding": experiment.paper_line,
        "not_yet": missing_parts(experiment, "paper"),
    }


def missing_parts(experiment: Experiment, scale: str) -> list[str]:
    """List what an experiment and its plan do not give, each with the reason."""
    rows = [f"{row}, {reason}" for row, reason in experiment.scales[scale].not_yet.items()]
    return [*experiment.not_yet, *rows]


def write_claims(options: ClaimsOptions) -> int:
    """Decide the claims by the reports, write the page and print the verdicts."""
    from dove.paper.claims import judge, load_claims
    from dove.paper.claims_page import write_page
    from dove.paper.reports import read_reports
    from dove.runtime import save_outputs

    reports = read_reports(options.reports)
    claims, columns = load_claims()
    judged = [(claim, judge(claim, columns, reports)) for claim in claims]
    save_outputs({options.output: write_page(judged, columns, reports).encode()})
    if options.json:
        found = [{"claim": claim.id, "verdict": outcome.verdict, "reason": outcome.reason} for claim, outcome in judged]
        print(json.dumps(found, indent=2))
        return 0
    width = max(len(claim.id) for claim in claims)
    for claim, outcome in judged:
        print(f"{claim.id:{width}}  {outcome.verdict}{f': {outcome.reason}' if outcome.reason else ''}")
    print(f"wrote {options.output}")
    return 0


def run_experiments(options: RunOptions) -> int:
    """Run the commands of one experiment or of all, and return the exit status of the first that fails, or 0."""
    if options.rehearse and (options.scale != "paper" or options.data or options.model or options.squeezenet):
        raise UserError(
            "--rehearse is for --scale paper, with data, models and weights of its own; leave other flags out"
        )
    require_least("--processes", options.processes)
    experiments = [load_experiment(options.name)] if options.name else load_experiments()
    if not options.rehearse:
        return run_plans(experiments, options)
    folder = options.output / "rehearsal"
    with rehearsal.environment(folder):
        status = run_plans(experiments, replace(options, data=folder / "data", output=folder))
    print("\n".join(f"not rehearsed: {part}" for part in rehearsal.NOT_REHEARSED))
    return status


def run_plans(experiments: Sequence[Experiment], options: RunOptions) -> int:
    """Check the plans of all experiments, then run them; what is the same in several is run once."""
    plans = {experiment.name: steps_of(experiment.scales[options.scale], options) for experiment in experiments}
    needed = {experiment.name: needed_by(experiment.scales[options.scale], options) for experiment in experiments}
    if options.rehearse and not options.dry_run:
        names = [name for said in needed.values() for name in said]
        rehearsal.prepare(options.output, names, [step for steps in plans.values() for step in steps])
    for experiment in experiments:
        refuse_training_images(plans[experiment.name])
        if not options.dry_run:
            check_data(f"{experiment.name} at --scale {options.scale}", needed[experiment.name], options.data)
    if not (options.model or options.rehearse):
        print_published(experiments, options)
    done: list[Step] = []
    for experiment in experiments:
        print(
            f"{experiment.name}: {experiment.title}\n{experiment.source.removeprefix('the ')}: {experiment.paper_line}"
        )
        steps = [step for step in plans[experiment.name] if step not in done]
        done += steps
        if options.rehearse:
            steps = [part for step in steps for part in rehearsal.rehearsed(step, options.output)]
        if status := run_steps(steps, options):
            return status
        print("\n".join(values_and_gaps(experiment, options)))
    return 0


def print_published(experiments: Sequence[Experiment], options: RunOptions) -> None:
    """Say which weights could be had instead of trained."""
    names = [name for experiment in experiments for name in experiment.scales[options.scale].models]
    for model in with_needs(names, options.data):
        if model.weights and not model.published(options.data):
            told = f"its published weights would be taken from {model.weights} in --data; without them it is trained"
            print(f"{model.label}: {told}")


def run_steps(steps: Sequence[Step], options: RunOptions) -> int:
    """Print and run commands up to the first that fails, and return its exit status, or 0."""
    from dove.cli import main

    processes = options.processes or rehearsal.PROCESSES
    if not (options.processes or options.rehearse) and any(step.images for step in steps):
        import torch

        processes = max(1, torch.cuda.device_count())
    for step in steps:
        print(f"$ {command_line(step, processes)}", flush=True)
        status = 0 if options.dry_run else run_step(step, processes, main)
        if status:
            return status
    return 0


def values_and_gaps(experiment: Experiment, options: RunOptions) -> list[str]:
    """Lines for below our results: what others report, and what is not there."""
    plan = experiment.scales[options.scale]
    lines = []
    for other in [experiment, *map(load_experiment, experiment.also)]:
        if other.paper_values:
            lines.append(f"{other.source}'s values ({other.paper.get('unit', 'as there')}):")
            lines.append(textwrap.indent(other.paper_values, "  "))
    lines += [f"not yet: {part}" for part in missing_parts(experiment, options.scale)]
    missing = [] if options.model else trained_models(options.bench)[1]
    if BENCH_MODELS in [item for command in plan.commands for item in command] and missing:
        lines.append(f"not trained in {options.bench}: {', '.join(missing)}; see dove paper train --help")
    return lines
