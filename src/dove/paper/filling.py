"""Plans with paths for their placeholders: the commands that are run, in their order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dove.paper import Plan
from dove.paper.bench import trained_models
from dove.paper.models import Step, load_models, with_needs

BENCH_MODELS = "{bench}"  # In a plan's command: LABEL=FOLDER of every trained model of the bench
ALL_MODELS = "{models}"  # In a plan's command: LABEL=FOLDER of every model of the plan


@dataclass(frozen=True)
class Places:
    """Places of data, models and results."""

    data: Path | None
    output: Path  # Folder for results and, in folders of their own, models
    models: Sequence[str] = ()  # What the user wants evaluated in place of the plan's models, maybe as LABEL=CHECKPOINT
    bench: Path = Path("results/bench")
    squeezenet: Path | None = None


def training_steps(plan: Plan, places: Places) -> list[Step]:
    """List the commands that make the models of a plan; none where the user names models."""
    if places.models:
        return []
    if not plan.models:
        values = _values(plan, places)
        return [Step(arguments=_fill(command, values, places, [])) for command in plan.train]
    return [step for model in with_needs(plan.models, places.data) for step in model.steps(places.data, places.output)]


def evaluation_steps(plan: Plan, places: Places) -> list[Step]:
    """List the commands that measure them. Where the user names models, only those about the plan's first model stay."""
    values, models = _values(plan, places), load_models()
    labelled = places.models or [f"{models[name].label}={models[name].folder(places.output)}" for name in plan.models]
    others = plan.models[1:] if places.models else []
    steps = []
    for command in plan.commands:
        if not _names(command, others):
            repeated = plan.each if any(_names(command, names) for names in plan.each) else [{}]
            steps += [Step(arguments=_fill(command, {**values, **more}, places, labelled)) for more in repeated]
    return steps


def _values(plan: Plan, places: Places) -> dict[str, str]:
    values = {"data": str(places.data or "DATA"), "output": str(places.output)}
    values |= {name: str(places.output / name / "model") for name in plan.models}
    main = values[plan.models[0]] if plan.models else plan.model.format(**values)
    values["model"] = places.models[0].rpartition("=")[2] if places.models else main
    if plan.models:
        values[plan.models[0]] = values["model"]
    return values | ({"squeezenet": str(places.squeezenet)} if places.squeezenet else {})


def _names(command: Sequence[str | list[str]], names: Iterable[str]) -> bool:
    return any("{" + name + "}" in str(command) for name in names)


def _fill(
    command: Sequence[str | list[str]], values: Mapping[str, str], places: Places, labelled: Sequence[str]
) -> list[str]:
    """One command line; a nested list is left out where there is no SqueezeNet for its placeholder."""
    arguments: list[str] = []
    for item in command:
        if item == BENCH_MODELS:
            arguments += [] if places.models else trained_models(places.bench)[0]
        elif item == ALL_MODELS:
            arguments += labelled
        elif isinstance(item, str):
            arguments.append(item.format(**values))
        elif places.squeezenet:
            arguments += [argument.format(**values) for argument in item]
    return arguments
