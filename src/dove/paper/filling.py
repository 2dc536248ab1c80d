"""Plans with paths for their placeholders: the commands that are run, in their order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dove.paper import Plan
from dove.paper.bench import trained_models
from dove.paper.models import Step, load_models, with_needs

BENCH_MODELS = "{bench}"  # In a plan's command: LABEL=FOLDER of every trained model of the bench
ALL_MODELS = "{models}"  # In a plan's command: LABEL=FOLDER of every model of the plan


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Rerun a table or figure of the paper, or all of them, at its own scale or with the small shipped model."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """table2, figure6, ..., which `dove paper list` lists; by default all of them, one after the other."""
    scale: Literal["paper", "tiny"] = "tiny"
    """paper trains and evaluates at the paper's size, on the data sets that it names; tiny takes minutes on a CPU."""
    data: Path | None = None
    """Folder with the data sets under the names that the command asks for; at tiny scale mostly any images."""
    output: Path = Path("results")
    """Folder for the results; each table and figure gets a folder of its own in it."""
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...")] = ()
    """Evaluate these checkpoints, maybe as LABEL=CHECKPOINT, instead of the scale's own, which at paper scale are trained
    first."""
    squeezenet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """SqueezeNet 1.0 weights: adds perceptual_squeezenet and fd_squeezenet where reconstructions are measured."""
    bench: Path = Path("results/bench")
    """Folder of the trainings of `dove paper train`, for tables that compare systems."""
    processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Processes of a training at paper scale, with as many images a step whatever their number; by default one for each
    GPU."""
    rehearse: bool = False
    """Try the plans of --scale paper in minutes on a CPU: the same commands on 64 drawn images, with an eighth of all widths
    and a few steps. Everything goes into the folder rehearsal in --output; its numbers say nothing."""
    dry_run: bool = False
    """Print the commands without running them."""


def steps_of(plan: Plan, options: RunOptions) -> list[Step]:
    """List the commands of a plan: those that make its models, unless the user names others, then those that measure them."""
    steps = []
    if plan.models and not options.model:
        for model in with_needs(plan.models, options.data):
            steps += model.steps(options.data, options.output)
    elif not options.model:
        steps += [Step(arguments=_fill(command, _values(plan, options), options, [])) for command in plan.train]
    return [*steps, *evaluation_steps(plan, options)]


def evaluation_steps(plan: Plan, options: RunOptions) -> list[Step]:
    """List the commands that measure them. Where the user names models, only those about the plan's first model stay."""
    values, models = _values(plan, options), load_models()
    labelled = options.model or [f"{models[name].label}={models[name].folder(options.output)}" for name in plan.models]
    others = plan.models[1:] if options.model else []
    steps = []
    for command in plan.commands:
        if not _names(command, others):
            repeated = plan.each if any(_names(command, names) for names in plan.each) else [{}]
            steps += [Step(arguments=_fill(command, {**values, **more}, options, labelled)) for more in repeated]
    return steps


def needed_by(plan: Plan, options: RunOptions) -> dict[str, str]:
    """Say what has to lie among the data, by name."""
    needed: dict[str, str] = {}
    for model in [] if options.model else with_needs(plan.models, options.data):
        if not model.published(options.data):
            needed |= model.data
    return needed | plan.data


def _values(plan: Plan, options: RunOptions) -> dict[str, str]:
    values = {"data": str(options.data or "DATA"), "output": str(options.output)}
    values |= {name: str(options.output / name / "model") for name in plan.models}
    main = values[plan.models[0]] if plan.models else plan.model.format(**values)
    values["model"] = options.model[0].rpartition("=")[2] if options.model else main
    if plan.models:
        values[plan.models[0]] = values["model"]
    return values | ({"squeezenet": str(options.squeezenet)} if options.squeezenet else {})


def _names(command: Sequence[str | list[str]], names: Iterable[str]) -> bool:
    return any("{" + name + "}" in str(command) for name in names)


def _fill(
    command: Sequence[str | list[str]], values: Mapping[str, str], options: RunOptions, labelled: Sequence[str]
) -> list[str]:
    """One command line; a nested list is left out where there is no SqueezeNet for its placeholder."""
    arguments: list[str] = []
    for item in command:
        if item == BENCH_MODELS:
            arguments += [] if options.model else trained_models(options.bench)[0]
        elif item == ALL_MODELS:
            arguments += labelled
        elif isinstance(item, str):
            arguments.append(item.format(**values))
        elif options.squeezenet:
            arguments += [argument.format(**values) for argument in item]
    return arguments
