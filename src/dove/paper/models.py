"""Models at the paper's size that tables compare, as data: how each is made, of what, and after which others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dove.paper import load_yaml


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of ``dove``."""

    arguments: list[str]
    images: int | None = None  # Images of a step over all processes, of a training that may be spread
    most_processes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """An entry of ``models.yaml``, which says what its fields mean."""

    name: str
    label: str
    rows: list[str]
    train: list[list[str]]
    needs: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    images: int | None = None
    weights: str = ""

    def folder(self, output: Path) -> Path:
        """The model's checkpoint folder."""
        return output / self.name / "model"

    def published(self, data: Path | None) -> Path | None:
        """Published weights that lie among the data, if they do."""
        return data / self.weights if data and self.weights and (data / self.weights).exists() else None

    def steps(self, data: Path | None, output: Path) -> list[Step]:
        """Commands that make the model; see ``models.yaml``."""
        folder = self.folder(output)
        if file := self.published(data):
            return [Step(arguments=["convert", str(file), "--kind", self.name, "--output", str(folder)])]
        values = {name: str(output / name / "model") for name in self.needs}
        values |= {"data": str(data or "DATA"), "output": str(output), "folder": str(folder.parent), "name": self.name}
        filled = [[argument.format(**values) for argument in command] for command in self.train]
        return [Step(arguments=command, images=self.images if "train" in command[:2] else None) for command in filled]


def load_models() -> dict[str, Model]:
    """All models by name, in an order in which each finds what it needs."""
    return {name: Model(name=name, **entry) for name, entry in load_yaml("models.yaml").items()}


def with_needs(names: Sequence[str], data: Path | None) -> list[Model]:
    """Models and what they are made from, in an order in which they can be made."""
    models = load_models()
    wanted = set(names)
    for name in reversed(models):
        if name in wanted and not models[name].published(data):
            wanted |= set(models[name].needs)
    return [model for name, model in models.items() if name in wanted]


def sources(arguments: Sequence[str]) -> Iterator[str]:
    """Image sources that a command reads: the values of --data, and of `dove reconstruct` the first arguments."""
    reading = arguments[0] == "reconstruct"
    for argument in arguments[1:]:
        if argument.startswith("--"):
            reading = argument == "--data"
        elif reading:
            yield argument
