"""Settings of a tokenizer for fast inference: :func:`optimize`."""

from typing import TypeVar

import torch

from dove.errors import UserError
from dove.tokenizer import Dove

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Precisions by name."""
CHUNK = 32
"""Tokens generated at a time where their number is not known beforehand: fewer use a processor's matrix units less well, more
are generated in vain."""

Model = TypeVar("Model", bound=Dove)


def optimize(model: Model, precision: str = "bf16") -> Model:
    """Set a tokenizer's precision, memory format and chunks, for inference alone: the same weights in less time.

    Images and tokens stay in fp32 outside the model. With "auto" and predicted qualities, generation ends once the image of
    the batch that needs most tokens has them.

    Args:
        model: on the device where it will run, with or without queries; it is changed in place.
        precision: "bf16" computes in bfloat16, except for a prior, EOS scores and the statistics of norms; "fp32" gives the
            tokens of the model as it was up to rounding.

    Returns:
        The model.

    Raises:
        UserError: for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"no precision {precision!r}; pass {' or '.join(PRECISIONS)}")
    model.eval().requires_grad_(False)
    for part in (model.vqgan, model.generator, model.token_decoder):
        part.to(PRECISIONS[precision])
    model.generator.eos_head.float()
    model.vqgan.to(memory_format=torch.channels_last)
    model.generator.chunk = CHUNK
    return model
