"""Settings of a tokenizer for fast inference: :func:`optimize`."""

from typing import TypeVar

import torch

from dove.errors import UserError
from dove.models.eos import VocabularyEosHead
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Precisions by name."""
CHUNK = 32
"""Tokens at once where their number is not known beforehand: fewer fill a processor's matrix units worse, more are
generated in vain."""
POSITIONS = 64
"""Positions at once of a vocabulary's scores: the paper's 50,304 words take 6 MB in bf16."""

Model = TypeVar("Model", bound=Dove)


def optimize(model: Model, precision: str = "bf16") -> Model:
    """Set a tokenizer's precision, memory format and chunks, for inference alone: the same weights in less time.

    Images and tokens stay in fp32 outside the model. With "auto" and predicted qualities, generation ends once the image of
    the batch that needs most tokens has them.

    Args:
        model: on the device where it will run, with or without queries; it is changed in place.
        precision: "bf16" computes in bfloat16, except for a prior, the statistics of norms and EOS scores other than a
            vocabulary's; "fp32" gives the tokens of the model as it was up to rounding.

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
    head = model.generator.eos_head
    if isinstance(head, VocabularyEosHead):
        head.positions_at_once = POSITIONS
    else:
        head.float()
    model.vqgan.to(memory_format=torch.channels_last)
    if isinstance(model.vqgan, VQGAN) and model.device.type == "cpu":
        model.vqgan.encoder.images_at_once = model.vqgan.decoder.images_at_once = 1
    model.generator.chunk = CHUNK
    return model
