"""A language model that sees through the tokens. It consumes ``Tokens``; no tokenizer imports it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dove.vlm.model import VisionLanguageModel

__all__ = ["VisionLanguageModel"]


def __getattr__(name: str) -> object:
    """Imported when first used, so that the settings load without torch."""
    if name != "VisionLanguageModel":
        raise AttributeError(f"module 'dove.vlm' has no attribute {name!r}")
    return getattr(import_module("dove.vlm.model"), name)
