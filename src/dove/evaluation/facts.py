"""Columns that make a comparison of tokenizers fair."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from dove.evaluation.common import Subject
from dove.evaluation.operations import decode_operations, encode_operations

_counted: dict[tuple[str, int], int] = {}
"""Multiply-adds of an image by a checkpoint's hash and a number of tokens; one process may measure several sets of images."""


def add_facts(rows: Sequence[dict[str, Any]], subject: Subject) -> None:
    """Add columns about a model to its rows.

    They are ``image_size``, ``parameters``, and where they are known ``bits_a_token`` of models with codes, ``images_seen``,
    and ``multiply_adds`` of encoding and decoding one image at a fixed number of tokens.
    """
    tokenizer = subject.tokenizer
    assert isinstance(tokenizer, nn.Module)
    facts: dict[str, Any] = {
        "image_size": tokenizer.image_size,
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),
    }
    config = getattr(tokenizer, "config", None) or getattr(getattr(tokenizer, "vqgan", None), "config", None)
    if codes := getattr(config, "codebook_size", None):
        facts["bits_a_token"] = math.log2(codes)
    if subject.images_seen is not None:
        facts["images_seen"] = subject.images_seen
    for row in rows:
        row.update(facts)
        if isinstance(count := row["num_tokens"], int):
            key = (subject.sha256, count)
            if key not in _counted:
                _counted[key] = (encode_operations(tokenizer, count) + decode_operations(tokenizer, count)) // 2
            row["multiply_adds"] = _counted[key]
