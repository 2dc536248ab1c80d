"""``dove train``: any preset on any images."""

import difflib
import os
from argparse import ArgumentError, ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from dove.errors import UserError
from dove.flags import nearest, parse_flags
from dove.training.config import TrainConfig
from dove.training.presets import PRESETS

Settings = TypeVar("Settings", bound=TrainConfig)
LENGTHS = ("--run.steps", "--run.epochs")  # Flags for the length of a run, of which one is given


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Parse the settings of a tokenizer's training; see ``parse_settings``."""
    return parse_settings(arguments, PRESETS, "dove train")


def parse_settings(arguments: Sequence[str], presets: Mapping[str, Settings], command: str) -> Settings:
    """Parse settings from the preset, then ``--config`` files, then flags; the last value given wins."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    parser.add_argument("--config", action="append", default=[])
    try:
        given, flags = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise UserError(f"{error.argument_name} needs a value") from error
    saved = [_read(file) for file in given.config]
    named = [values.pop("preset", None) for values in saved]
    preset = given.preset or next(filter(None, named), None)
    if preset is None:
        if {"-h", "--help"} & set(flags):
            preset = "dove-tiny" if "dove-tiny" in presets else next(iter(presets))
        else:
            if wrong := difflib.get_close_matches("--preset", [flag.split("=")[0] for flag in flags], n=1):
                raise UserError(f"no flag {wrong[0]}; did you mean --preset?")
            raise UserError(f"pass --preset with one of {', '.join(presets)}, or a --config that names one")
    if preset not in presets:
        hint = nearest(preset, presets) or f"; the presets are {', '.join(presets)}"
        raise UserError(f"no preset {preset!r}{hint}")
    default = presets[preset]
    layers = [*(_flatten(values) for values in saved), flags]
    return parse_flags(
        type(default),
        default=default,
        arguments=[flag for layer in layers for flag in [*_other_length(layer), *layer]],
        prog=f"{command} --preset {preset}",
        config=(tyro.conf.FlagConversionOff, tyro.conf.SuppressFixed),
    )


def run(config: TrainConfig) -> int:
    """Train and say where the model is."""
    from dove.training.setup import run_training

    model = run_training(config)
    report_model(model)
    return 0


def report_model(folder: Path) -> None:
    """Say where a finished model is, once for all processes of its training."""
    if os.environ.get("RANK", "0") == "0":
        print(f"model: {folder}")


def _read(file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold settings by name, like run: {{steps: 1000}}")
    return values


def _other_length(flags: list[str]) -> list[str]:
    """Give the flag that resets the other length of a run where flags set one: the last value given wins."""
    given = [name for name in LENGTHS if any(flag.split("=", 1)[0] == name for flag in flags)]
    return [part for name in LENGTHS if len(given) == 1 and name not in given for part in (name, "0")]


def _flatten(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Flatten nested settings into the flags a user would type, so that files and flags go through one parser."""
    flags: list[str] = []
    for name, value in values.items():
        flag = f"{prefix}{name}".replace("_", "-")
        if isinstance(value, dict):
            flags += _flatten(value, flag + ".")
        elif isinstance(value, list):
            flags += ["--" + flag, *map(str, value)]
        elif str(value).startswith("-"):
            flags.append(f"--{flag}={value}")
        else:
            flags += ["--" + flag, str(value)]
    return flags
