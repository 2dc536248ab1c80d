"""DOVE: images as sequences of continuous tokens, as many as each image needs.

Names are imported when first used, so that ``import dove`` itself loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dove.config import BackboneConfig, DoveConfig, VQGANConfig
    from dove.errors import UserError
    from dove.lengths import Auto, Fixed, LengthPolicy, parse_length_policy
    from dove.models.optimize import optimize
    from dove.processor import ImageProcessor
    from dove.tokenizer import Dove
    from dove.tokens import Tokens

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

__all__ = [
    "Auto",
    "BackboneConfig",
    "Dove",
    "DoveConfig",
    "Fixed",
    "ImageProcessor",
    "LengthPolicy",
    "Tokens",
    "UserError",
    "VQGANConfig",
    "__version__",
    "optimize",
    "parse_length_policy",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dove' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
