"""The plans at paper scale on drawn images: the same commands with an eighth of all widths and a few steps, on the CPU."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from dove.config import BackboneConfig, VQGANConfig
from dove.paper.models import Step

PROCESSES, DIVISOR = 2, 8
WIDTHS = frozenset(
    "block_out_channels codebook_size hidden_channels hidden_size intermediate_size latent_channels norm_groups token_dim "
    "vocab_size width".split()
)  # Settings of models that are divided, where they can be
PRETRAINED = {"EleutherAI/pythia-70m": "pythia", "mao1207/vqvae-amused": "amused", "lmsys/vicuna-7b-v1.5": "vicuna"}
"""Folders of small models with random weights, by the hub id that they stand for."""
METRICS = {"fid": "fd_squeezenet", "lpips": "perceptual_squeezenet", "dreamsim": "perceptual_squeezenet"}
NOT_REHEARSED = (
    "published weights of VQGAN, TiTok and ALIT: random weights stand for the first, the others are trained",
    "FID, LPIPS and DreamSim: SqueezeNet with random weights stands for their networks",
    "Pythia-70M and Vicuna-7B: small models with random weights stand for them",
    "GPUs: two processes on the CPU share a training, over gloo",
)  # What a rehearsal cannot try, as it has no weights of others and no GPU
IMAGES, EPOCHS, MOST = 2, ("0.017", "0.034"), 2
"""Images of a step; length of a training and then of the same one resumed; images of an evaluation at most."""
RUN = {"holdout": 1, "log_every": 1, "sample_every": 2, "checkpoint_every": 2}


def environment(folder: Path) -> AbstractContextManager[object]:
    """Set the environment of all commands: no GPU, no network, and files in the rehearsal's folder."""
    places = {"DOVE_DATA": folder / "data", "DOVE_CACHE": folder / "cache"}
    places["DOVE_SQUEEZENET"] = folder / "pretrained" / "squeezenet.safetensors"
    given = {name: str(path.resolve()) for name, path in places.items()}
    return patch.dict(os.environ, {**given, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""})


def prepare(folder: Path, names: Iterable[str], steps: Sequence[Step]) -> None:
    """Draw the data, draw the weights that stand for pretrained ones, and write the settings of every training."""
    from dove.paper.toy_data import draw_data

    draw_data(folder / "data", names)
    draw_weights(folder)
    write_settings(folder, steps)


def write_settings(folder: Path, steps: Sequence[Step]) -> None:
    """Write what the settings of trainings differ in from those of their presets."""
    from dove.training.presets import PRESETS
    from dove.vlm.config import VLM_PRESETS

    (folder / "settings").mkdir(exist_ok=True)
    for file in {settings_file(step, folder) for step in steps if step.images}:
        changes = small_settings({**PRESETS, **VLM_PRESETS}[file.stem], folder)
        file.write_text(yaml.safe_dump({**changes, "run": RUN}, sort_keys=False), encoding="utf-8")


def rehearsed(step: Step, folder: Path) -> list[Step]:
    """Give the commands by which a step is rehearsed: for a training half of it on one process, the rest by resuming on all."""
    arguments = [stand_in(METRICS.get(argument, argument), folder) for argument in step.arguments]
    if step.images:
        arguments += ["--config", str(settings_file(step, folder))]
        half, whole = ([*arguments, "--run.epochs", epochs] for epochs in EPOCHS)
        first = Step(arguments=half, images=IMAGES, most_processes=1)
        return [first, replace(first, arguments=whole, most_processes=None)]
    if {"evaluate", "reconstruct"} & set(arguments[:2]):
        arguments += [] if "--limit" in arguments else ["--limit", str(MOST)]
        position = arguments.index("--limit") + 1
        arguments[position] = str(min(int(arguments[position]), MOST))
        arguments += ["--allow-few-images"] if METRICS["fid"] in arguments else []
        arguments += ["--repetitions", "1"] if "speed" in arguments[:2] else []
    return [replace(step, arguments=arguments)]


def settings_file(step: Step, folder: Path) -> Path:
    """Locate the settings that a rehearsed training has of its own."""
    return folder / "settings" / f"{step.arguments[step.arguments.index('--preset') + 1]}.yaml"


def stand_in(name: str, folder: Path) -> str:
    """Put a folder of random weights in the place of a hub id that has one, and leave other names."""
    return str(folder / "pretrained" / PRETRAINED[name]) if name in PRETRAINED else name


def small_settings(settings: Any, folder: Path) -> dict[str, Any]:
    """Give what changes where widths are divided and networks of others replaced, in settings and those within them."""
    changes: dict[str, Any] = {}
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        new: Any = None
        if is_dataclass(value):
            new = small_settings(value, folder)
        elif setting.name in WIDTHS and isinstance(value, tuple):
            new = [width // DIVISOR for width in value]
        elif setting.name in WIDTHS and value and value % DIVISOR == 0:
            new = value // DIVISOR
        elif isinstance(value, str):
            new = "squeezenet" if value == "lpips" else stand_in(value, folder)
        if new and new != value:
            changes[setting.name] = new
    return changes


def draw_weights(folder: Path) -> None:
    """Write small models with random weights in the formats of what the plans load."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_0
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from dove.models.pretrained import neox_settings, vqmodel_settings
    from dove.models.vqgan import VQGAN
    from dove.query.config import QueryConfig
    from dove.vlm.checkpoint import small_language_model
    from dove.vlm.config import LanguageModelConfig
    from dove.vlm.text import train_text_tokenizer

    torch.manual_seed(0)
    pretrained = folder / "pretrained"
    words = train_text_tokenizer(["a red circle at a blue square"], 300)
    sizes = neox_settings(BackboneConfig(**small_settings(BackboneConfig(), folder)))
    pythia = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, vocab_size=small_settings(QueryConfig(), folder)["vocab_size"]))
    vicuna = small_language_model(LanguageModelConfig(max_positions=1024), words)
    for name, model in {"pythia": pythia, "vicuna": vicuna}.items():
        model.save_pretrained(pretrained / name)
        words.save_pretrained(pretrained / name)
    config = VQGANConfig(**small_settings(VQGANConfig(), folder))
    (pretrained / "amused").mkdir(exist_ok=True)
    save_file(VQGAN(config).state_dict(), pretrained / "amused" / "diffusion_pytorch_model.safetensors")
    (pretrained / "amused" / "config.json").write_text(json.dumps(vqmodel_settings(config)))
    save_file(squeezenet1_0().state_dict(), pretrained / "squeezenet.safetensors")
