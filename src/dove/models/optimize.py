"""A tokenizer made ready for speed: :func:`optimize`."""

from typing import TypeVar

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from dove.config import VQGANConfig
from dove.errors import UserError
from dove.models.eos import VocabularyEosHead
from dove.models.inference import InferenceBackbone, InferenceGenerator, InferenceVocabularyEosHead
from dove.models.inference_vqgan import LARGE, InferenceDecoder, InferenceEncoder, InferenceResidual
from dove.models.token_decoder import KeptTokenDecoder
from dove.models.token_generator import BandTimestamps
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHUNK = 32
"""Tokens at once where their number is not known beforehand: fewer fill a processor's matrix units worse, more are
generated in vain."""

Module = TypeVar("Module", bound=nn.Module)


def optimize(model: Dove, precision: str = "bf16") -> Dove:
    """Make a tokenizer fast, for inference alone: the same weights and tokens in less time.

    Images and tokens still come and go in fp32. With "auto" and predicted qualities, generation stops with the image of
    the batch that needs most tokens.

    Args:
        model: on the device where it will run; it is changed in place.
        precision: "bf16" computes in bfloat16, except for scores and norms' statistics; "fp32" gives the tokens of the
            model as it was up to rounding.

    Returns:
        The model. ``state_dict`` has the names it had; training it is refused by torch.

    Raises:
        UserError: for an unknown precision, or a model with queries.
    """
    if precision not in PRECISIONS:
        raise UserError(f"no precision {precision!r}; pass {' or '.join(PRECISIONS)}")
    if type(model) is not Dove:
        raise UserError(f"a {type(model).__name__} cannot be optimized; pass a model without queries")
    if isinstance(model.generator, InferenceGenerator):
        raise UserError("this model is optimized already; load it again for another precision")
    model.eval().requires_grad_(False)
    for part in matrix_parts(model):
        part.to(PRECISIONS[precision])
    model.vqgan.to(memory_format=torch.channels_last)
    optimize_ends(model.vqgan)
    model.generator = share(model.generator, InferenceGenerator)
    model.generator.chunk = CHUNK
    if isinstance(model.generator.eos_head, VocabularyEosHead):
        model.generator.eos_head = share(model.generator.eos_head, InferenceVocabularyEosHead)
    for transformer in (model.generator, model.token_decoder):
        transformer.backbone = share(transformer.backbone, InferenceBackbone)
    return model


def matrix_parts(model: Dove) -> list[nn.Module]:
    """What consists of matrix products and convolutions. Bands and scores are left out: they need their digits."""
    generator, decoder = model.generator, model.token_decoder
    parts: list[nn.Module] = [model.vqgan]
    parts += [generator.backbone, generator.latent_projection, generator.token_projection]
    parts += [decoder.backbone, decoder.latent_projection, decoder.token_projection]
    if isinstance(generator.timestamps, BandTimestamps):
        parts.append(generator.timestamps.projection)
    if isinstance(decoder, KeptTokenDecoder):
        parts.append(decoder.reader)
    if model.config.eos_head == "vocab":
        parts.append(generator.eos_head)
    return parts


def optimize_ends(vqgan: VQGAN) -> None:
    """Run wide levels in parts, and residual blocks in place."""
    shorten_residuals(vqgan)
    network = vqgan.model
    network.encoder, network.decoder = (
        share(network.encoder, InferenceEncoder),
        share(network.decoder, InferenceDecoder),
    )
    for end in (network.encoder, network.decoder):
        end.images_at_once = 1 if network.device.type == "cpu" else 64
        end.wide = wide_levels(vqgan.config)


def wide_levels(config: VQGANConfig) -> int:
    """Levels of the image ends, from the pixels on, where one image has more than ``LARGE`` activations."""
    side = config.image_size // config.patch_size
    sizes = [channels * (side >> level) ** 2 for level, channels in enumerate(config.block_out_channels)]
    return next((level for level, size in enumerate(sizes) if size <= LARGE), len(sizes))


def shorten_residuals(module: nn.Module) -> None:
    """Replace diffusers' residual blocks anywhere inside."""
    for name, child in module.named_children():
        if isinstance(child, ResnetBlock2D):
            setattr(module, name, InferenceResidual(child))
        else:
            shorten_residuals(child)


def share(module: nn.Module, kind: type[Module]) -> Module:
    """A module of a subclass that has another one's parameters, buffers and settings."""
    shared = kind.__new__(kind)
    shared.__dict__.update(module.__dict__)
    return shared
