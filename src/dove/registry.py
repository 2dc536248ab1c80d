"""Any tokenizer's checkpoint, by whatever its config says it is."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dove.baselines.alit import ALIT
from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig
from dove.baselines.titok import make_titok
from dove.baselines.vqgan import MaskgitTokenizer, VQGANTokenizer
from dove.checkpoint import load_checkpoint, load_weights, model_type, read_model_type, resolve_checkpoint
from dove.config import DoveConfig, QDoveConfig, VQGANConfig
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove

BUILDERS: dict[type, Callable[[Any], nn.Module]] = {
    TiTokConfig: make_titok,
    ALITConfig: ALIT,
    MaskgitVQGANConfig: MaskgitTokenizer,
}
"""Models made from their settings alone, by the settings' class."""


def _load(folder: Path, kind: type) -> nn.Module:
    config, weights = load_checkpoint(folder, kind)
    model = BUILDERS[kind](config)
    load_weights(model, weights, folder)
    return model.eval()


_CLASSES: dict[type, Callable[[Path], nn.Module]] = {
    DoveConfig: Dove.from_pretrained,
    QDoveConfig: QDove.from_pretrained,
    VQGANConfig: VQGANTokenizer.from_pretrained,
    **{kind: partial(_load, kind=kind) for kind in BUILDERS},
}
LOADERS = {model_type(kind): loader for kind, loader in _CLASSES.items()}
"""What reads a checkpoint folder, by the ``model_type`` in its config."""
SETTINGS = {model_type(kind): kind for kind in _CLASSES}
"""What its config is read as, by the same."""


def require_known_type(folder: Path, known: Iterable[str]) -> str:
    """The kind of model in a checkpoint folder.

    Raises:
        UserError: if there is no readable config, or it describes a kind that is not among ``known``.
    """
    kind = read_model_type(folder)
    if kind not in known:
        raise UserError(f"{folder} holds a model of type {kind!r}; the known types are {', '.join(known)}")
    return kind


def load_tokenizer(name: str | Path, **hub_options: Any) -> Tokenizer:
    """A tokenizer of any kind, in fp32, for evaluation.

    Args:
        name: a folder, a shipped name or a hub id.
        hub_options: as for ``Dove.from_pretrained``.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or of an unknown kind.
    """
    folder = resolve_checkpoint(name, **hub_options)
    tokenizer = LOADERS[require_known_type(folder, LOADERS)](folder)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer
