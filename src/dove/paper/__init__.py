"""The paper's tables and figures as data: one file each, with the paper's values and the commands that rerun them."""

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from dove.errors import UserError
from dove.flags import nearest

KINDS = ("table", "figure", "anchors")  # First parts of the names of experiments
REMARKS = {
    "table1": "the training loop, as pseudocode: dove train --preset dove-base",
    "table8": "settings of the language model's training: dove vlm train --preset llava",
    "table9": "the benchmarks of Table 3, their prompts and metrics: dove vlm evaluate --help",
    "figure2": "a drawing of the model",
    "figure3": "a drawing of the loss under a query",
}  # The paper's tables and figures in which nothing is measured


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Commands of an experiment at one scale.

    Placeholders in arguments: {data} the user's folder, {output} the folder for results, {model} the checkpoint, the name of
    one of ``models`` its folder, and what ``each`` names. The argument {models} alone stands for LABEL=FOLDER of all of
    ``models``, {bench} for those of the bench. An argument that is a list of its own, such as
    [--perceptual-weights, "{squeezenet}"], is left out without that file.
    """

    commands: list[list[str | list[str]]]  # Arguments of ``dove``, one list for each command
    data: dict[str, str] = field(default_factory=dict)
    """Data sets that {data} must hold, by name; the empty name is {data} itself."""
    models: list[str] = field(default_factory=list)
    """Entries of ``models.yaml``, made first if need be; {model} is the first of them."""
    model: str = "dove-tiny"  # Without ``models``, what {model} is, unless the user names another
    train: list[list[str | list[str]]] = field(default_factory=list)  # Without ``models``, commands that make {model}
    each: list[dict[str, str]] = field(default_factory=list)
    """Every command that names one of these placeholders is run once for each of these."""
    not_yet: dict[str, str] = field(default_factory=dict)
    """Rows of the paper that this plan does not give, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure."""

    name: str
    title: str
    paper: dict[str, Any]  # Values in the paper, and their unit
    source: str = "the paper"  # Publication that reports them
    also: list[str] = field(default_factory=list)  # Names of experiments whose values are printed beside these
    not_yet: list[str] = field(default_factory=list)  # Parts that cannot be run at any scale, each with the reason
    scales: dict[str, Plan]  # Plans by scale: "paper" and "tiny"

    @property
    def paper_line(self) -> str:
        """The paper's finding in one line."""
        return " ".join(str(self.paper["finding"]).split())

    @property
    def paper_values(self) -> str:
        """The paper's values as lines of YAML, one for each innermost row; empty where it gives none."""
        values = self.paper.get("values") or self.paper.get("rows")
        columns = self.paper.get("columns")
        lines = {"columns": columns, "rows": values} if columns and values else values
        return yaml.safe_dump(lines, default_flow_style=None, sort_keys=False, width=160).rstrip() if lines else ""


def load_yaml(name: str) -> Any:
    """Read a file of this package."""
    return yaml.safe_load((files("dove.paper") / name).read_text(encoding="utf-8"))


def experiment_names() -> list[str]:
    """List all names: tables, figures, then the values of others, each in the order of the paper."""
    stems = [file.name.removesuffix(".yaml") for file in files("dove.paper").iterdir() if file.name.endswith(".yaml")]
    found = [(kind, stem) for stem in stems for kind in range(len(KINDS)) if stem.startswith(KINDS[kind])]
    return [stem for _, stem in sorted(found, key=lambda item: (item[0], len(item[1]), item[1]))]


def load_experiments() -> list[Experiment]:
    """Read all experiments, in the order of their names."""
    return [load_experiment(name) for name in experiment_names()]


def load_experiment(name: str) -> Experiment:
    """Read the table or figure of that name."""
    names = experiment_names()
    wanted = name.lower().replace(" ", "").replace("-", "")
    if wanted in REMARKS:
        raise UserError(f"{wanted} measures nothing; it is {REMARKS[wanted]}")
    if wanted not in names:
        hint = nearest(wanted, names) or f"; there are {', '.join(names)}"
        raise UserError(f"no table or figure {name!r}{hint}")
    values = load_yaml(f"{wanted}.yaml")
    scales = {scale: Plan(**plan) for scale, plan in values.pop("scales").items()}
    return Experiment(name=wanted, scales=scales, **values)
