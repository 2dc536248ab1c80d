"""``dove vlm train``: connector and language model on conversations about images."""

from collections.abc import Sequence

from dove.commands.train import parse_settings, report_model
from dove.vlm.config import VLM_PRESETS, VLMTrainConfig


def parse(arguments: Sequence[str]) -> VLMTrainConfig:
    """Settings from the preset, then ``--config`` files, then flags; the last value given wins."""
    return parse_settings(arguments, VLM_PRESETS, "dove vlm train")


def run(config: VLMTrainConfig) -> int:
    """Train and say where the model is."""
    from dove.vlm.train import run_vlm_training

    report_model(run_vlm_training(config))
    return 0
