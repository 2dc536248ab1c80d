"""Columns that make a comparison of tokenizers fair, and the check that a row has learned anything."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from dove.baselines.flat_colour import FlatColour
from dove.evaluation.common import Subject
from dove.evaluation.operations import decode_operations, encode_operations
from dove.paper.reports import has_learned

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


def mark_learned(rows: Sequence[dict[str, Any]], subjects: Sequence[Subject]) -> list[str]:
    """Mark rows by ``learned`` where a flat colour of the model's size is beside it, and name the models that have not."""
    floors = {
        row["image_size"]: row["psnr"]
        for subject in subjects
        if isinstance(subject.tokenizer, FlatColour)
        for row in rows
        if row["model"] == subject.name
    }
    unlearned = []
    for subject in subjects:
        own = [row for row in rows if row["model"] == subject.name]
        learned = has_learned(own, floors)
        if learned is None or isinstance(subject.tokenizer, FlatColour):
            continue
        for row in own:
            row["learned"] = learned
        unlearned += [] if learned else [subject.name]
    return unlearned
