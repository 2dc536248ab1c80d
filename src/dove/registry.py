"""Tokenizers by the ``model_type`` in their checkpoints' configs. A class is imported when one of its checkpoints is."""

from collections.abc import Callable, Iterable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dove.checkpoint import load_checkpoint, load_weights, read_model_type, resolve_checkpoint
from dove.errors import UserError
from dove.protocol import Tokenizer

MODELS = {
    "Dove": ("dove.config:DoveConfig", "dove.tokenizer:Dove"),
    "QDove": ("dove.query.config:QDoveConfig", "dove.query.tokenizer:QDove"),
    "VQGAN": ("dove.config:VQGANConfig", "dove.baselines.vqgan:VQGANTokenizer"),
    "TiTok": ("dove.baselines.config:TiTokConfig", "dove.baselines.titok:make_titok"),
    "ALIT": ("dove.baselines.config:ALITConfig", "dove.baselines.alit:ALIT"),
    "Cosines": ("dove.baselines.cosines:CosinesConfig", "dove.baselines.cosines:Cosines"),
    "FlatColour": ("dove.baselines.flat_colour:FlatColourConfig", "dove.baselines.flat_colour:FlatColour"),
    "MaskgitVQGAN": ("dove.baselines.config:MaskgitVQGANConfig", "dove.baselines.vqgan:MaskgitTokenizer"),
}  # Settings, and what makes a model: a class with ``from_pretrained``, or a class or function that takes the settings


def find_settings(model_type: str) -> type:
    """Find the class of a checkpoint's settings."""
    return resolve_name(MODELS[model_type][0])


def find_class(model_type: str) -> Callable[..., Any] | None:
    """Find the class or function that makes models of a type; None for an unknown type."""
    return resolve_name(MODELS[model_type][1]) if model_type in MODELS else None


def require_known_type(folder: Path, known: Iterable[str]) -> str:
    """Read the model type of a checkpoint folder, which must be a known one."""
    kind = read_model_type(folder)
    if kind not in known:
        raise UserError(f"{folder} holds a model of type {kind!r}; the known types are {', '.join(known)}")
    return kind


def load_tokenizer(name: str | Path, **hub_options: Any) -> Tokenizer:
    """Load a tokenizer of any kind, in fp32, for evaluation.

    Args:
        name: a folder, a shipped name or a hub id.
        hub_options: see ``Dove.from_pretrained``.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged or of an unknown kind.
    """
    folder = resolve_checkpoint(name, **hub_options)
    kind = require_known_type(folder, MODELS)
    make: Any = find_class(kind)
    if hasattr(make, "from_pretrained"):
        return make.from_pretrained(folder)
    config, weights = load_checkpoint(folder, find_settings(kind))
    model = make(config)
    load_weights(model, weights, folder)
    return model.eval()
