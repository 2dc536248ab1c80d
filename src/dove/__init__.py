"""DOVE: images as sequences of continuous tokens, as many as each image needs.

Names are imported when first used, so that ``import dove`` itself loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dove.config import BackboneConfig as BackboneConfig
    from dove.config import DoveConfig as DoveConfig
    from dove.config import VQGANConfig as VQGANConfig
    from dove.errors import UserError as UserError
    from dove.lengths import Auto as Auto
    from dove.lengths import Fixed as Fixed
    from dove.lengths import LengthPolicy as LengthPolicy
    from dove.lengths import parse_length_policy as parse_length_policy
    from dove.models.optimize import optimize as optimize
    from dove.processor import ImageProcessor as ImageProcessor
    from dove.tokenizer import Dove as Dove
    from dove.tokens import Tokens as Tokens

__version__ = "0.1.0"

_HOMES = {
    "Auto": "dove.lengths",
    "BackboneConfig": "dove.config",
    "Dove": "dove.tokenizer",
    "DoveConfig": "dove.config",
    "Fixed": "dove.lengths",
    "ImageProcessor": "dove.processor",
    "LengthPolicy": "dove.lengths",
    "Tokens": "dove.tokens",
    "UserError": "dove.errors",
    "VQGANConfig": "dove.config",
    "optimize": "dove.models.optimize",
    "parse_length_policy": "dove.lengths",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dove' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
