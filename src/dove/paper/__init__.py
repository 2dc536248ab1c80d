"""The paper's tables and figures as data: one file each, with the paper's values and the commands that rerun them."""

import difflib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from dove.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an experiment is run at one scale.

    Placeholders in arguments: {data} the user's folder, {output} the folder for results, {model} the checkpoint. An
    argument that is a list of its own, such as [--perceptual-weights, "{squeezenet}"], is left out without that file.
    """

    commands: list[list[str | list[str]]]
    """Arguments of ``dove``, one list for each command."""
    data: dict[str, str] = field(default_factory=dict)
    """What has to lie under which name in {data}; the empty name is {data} itself."""
    model: str = "dove-tiny"
    """What {model} is, unless the user names another."""
    train: list[list[str | list[str]]] = field(default_factory=list)
    """Commands that make {model}."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure."""

    name: str
    title: str
    paper: dict[str, Any]
    """What the paper reports, and how."""
    not_yet: list[str] = field(default_factory=list)
    """Rows that cannot be run, each with the reason."""
    scales: dict[str, Plan]
    """Plans by scale: "paper" and "tiny"."""

    @property
    def paper_line(self) -> str:
        """The paper's finding in one line."""
        return " ".join(str(self.paper["finding"]).split())

    @property
    def paper_values(self) -> str:
        """The paper's values as lines of YAML, one for each innermost row; empty where it gives none."""
        values = self.paper.get("values")
        return yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=160).rstrip() if values else ""


def experiment_names() -> list[str]:
    """All names: tables, then figures, each in the order of the paper."""
    stems = [file.name.removesuffix(".yaml") for file in files("dove.paper").iterdir() if file.name.endswith(".yaml")]
    return sorted(stems, key=lambda stem: (stem.startswith("figure"), len(stem), stem))


def load_experiments() -> list[Experiment]:
    """All of them, in order."""
    return [load_experiment(name) for name in experiment_names()]


def load_experiment(name: str) -> Experiment:
    """The table or figure of that name.

    Raises:
        UserError: for an unknown name, listing the known ones.
    """
    names = experiment_names()
    wanted = name.lower().replace(" ", "").replace("-", "")
    if wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no table or figure {name!r}; {hint}there are {', '.join(names)}")
    values = yaml.safe_load((files("dove.paper") / f"{wanted}.yaml").read_text(encoding="utf-8"))
    scales = {scale: Plan(**plan) for scale, plan in values.pop("scales").items()}
    return Experiment(name=wanted, scales=scales, **values)
