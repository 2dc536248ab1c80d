"""Any tokenizer's checkpoint, by whatever its config says it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dove.baselines.alit import ALIT
from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig
from dove.baselines.protocol import Tokenizer
from dove.baselines.titok import make_titok
from dove.baselines.vqgan import MaskgitTokenizer, VQGANTokenizer
from dove.checkpoint import load_checkpoint, load_weights, model_type, read_model_type, resolve_checkpoint
from dove.config import DoveConfig, QDoveConfig, VQGANConfig
from dove.errors import UserError
from dove.qdove import QDove
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


LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    model_type(DoveConfig): Dove.from_pretrained,
    model_type(QDoveConfig): QDove.from_pretrained,
    model_type(VQGANConfig): VQGANTokenizer.from_pretrained,
    **{model_type(kind): partial(_load, kind=kind) for kind in BUILDERS},
}
"""What reads a checkpoint folder, by the ``model_type`` in its config."""


def load_tokenizer(name: str | Path, **hub_options: Any) -> Tokenizer:
    """A tokenizer of any kind, in fp32, for evaluation.

    Args:
        name: a folder, a shipped name or a hub id.
        hub_options: as for ``Dove.from_pretrained``.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or of an unknown kind.
    """
    folder = resolve_checkpoint(name, **hub_options)
    kind = read_model_type(folder)
    if kind not in LOADERS:
        raise UserError(f"{folder} holds a model of type {kind!r}; the known types are {', '.join(LOADERS)}")
    tokenizer = LOADERS[kind](folder)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer
