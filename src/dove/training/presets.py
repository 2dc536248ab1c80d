"""Named starting points of ``dove train``, as ``dove/configs/*.yaml`` has them. Imports no torch."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TypeVar

import yaml

from dove.baselines.config import ALITS, TITOKS
from dove.config import config_from_dict
from dove.errors import UserError
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
    TiTokTrainConfig,
)
from dove.training.config import DoveTrainConfig, PrefixTrainConfig, TrainConfig, VQGANTrainConfig
from dove.training.query_config import QDoveTrainConfig, QueryPrefixTrainConfig

Settings = TypeVar("Settings", bound=TrainConfig)
RECIPES: dict[str, type[TrainConfig]] = {
    "vqgan": VQGANTrainConfig,
    "dove": DoveTrainConfig,
    "prefix": PrefixTrainConfig,
    "qdove": QDoveTrainConfig,
    "query-prefix": QueryPrefixTrainConfig,
    "maskgit-vqgan": MaskgitVQGANTrainConfig,
    "titok": TiTokTrainConfig,
    "titok-codes": TiTokCodesTrainConfig,
    "titok-pixels": TiTokPixelsTrainConfig,
    "alit-codes": ALITCodesTrainConfig,
    "alit-pixels": ALITPixelsTrainConfig,
}  # Settings class of every recipe that a preset of ``dove train`` may name
MODELS = {**TITOKS, **ALITS}  # Models that a preset names instead of listing their settings


def load_presets(file: str, recipes: Mapping[str, type[Settings]]) -> dict[str, Settings]:
    """Read the presets in a file of ``dove/configs``; what a preset leaves out has the default of its recipe."""
    presets: dict[str, Settings] = {}
    for name, values in yaml.safe_load((files("dove") / "configs" / file).read_text(encoding="utf-8")).items():
        if name.startswith("."):
            continue
        settings = {"preset": name} | {key: value for key, value in values.items() if key != "recipe"}
        if isinstance(model := settings.get("model"), str):
            settings["model"] = MODELS[model]
        presets[name] = config_from_dict(settings, recipes[values["recipe"]], where=name, partial=True)
    return presets


PRESETS: dict[str, TrainConfig] = {**load_presets("dove.yaml", RECIPES), **load_presets("rivals.yaml", RECIPES)}
"""Every preset by name."""


def get_preset(name: str) -> TrainConfig:
    """Give the preset of a name."""
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
