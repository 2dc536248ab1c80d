"""Checks before anything is run: data that are missing, and images that a model was trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from dove.errors import UserError
from dove.paper.models import Step, sources

CONFIG = "config.yaml"  # Settings of a training, beside the folder of its model


def check_data(what: str, needed: dict[str, str], data: Path | None) -> None:
    """Find the data that a plan reads."""
    if not needed:
        return
    if data is None:
        told = "; ".join(said if name == "." else f"{name} ({said})" for name, said in needed.items())
        raise UserError(f"{what} needs --data DIR with {told}")
    missing = {name: said for name, said in needed.items() if not (data / name).exists()}
    if missing:
        told = "; ".join(f"{data / name}: {said}" for name, said in missing.items())
        raise UserError(f"{what} lacks {len(missing)} of {len(needed)} things in --data: {told}")


def refuse_training_images(steps: Sequence[Step]) -> None:
    """Refuse to measure a model on the images that it was trained on.

    What a model was trained on say the commands among ``steps`` that train it, or else the settings beside its folder.
    """
    trained = [source for step in steps if "train" in step.arguments[:2] for source in sources(step.arguments)]
    for step in steps:
        if not {"evaluate", "reconstruct"} & set(step.arguments[:2]):
            continue
        seen = [*trained, *_of_models(step.arguments)]
        for source in sources(step.arguments):
            found = next((one for one in seen if overlap(source, one)), None)
            if found is not None:
                raise UserError(
                    f"{source} would be measured on, and the model was trained on {found}; pass other images, as what is "
                    "learned by heart says nothing about quality"
                )


def overlap(one: str, other: str) -> bool:
    """Tell whether two sources are the same path, or one lies in the other."""
    first, second = Path(one), Path(other)
    if not (first.exists() and second.exists()):
        return one == other and "/" in one
    first, second = first.resolve(), second.resolve()
    return first == second or first in second.parents or second in first.parents


def _of_models(arguments: Sequence[str]) -> Iterator[str]:
    """List the training data of the models among a command's arguments, where their settings lie beside them."""
    for argument in arguments:
        file = Path(argument.rpartition("=")[2]).parent / CONFIG
        if not argument.startswith("--") and file.is_file():
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(settings, dict) and settings.get("data"):
                yield str(settings["data"])
