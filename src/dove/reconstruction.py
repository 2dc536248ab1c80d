"""One image at several lengths for the price of one encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dove.lengths import LengthPolicy
from dove.metrics import psnr
from dove.qdove import QDove
from dove.tokenizer import Dove
from dove.tokens import Tokens


@dataclass(frozen=True)
class Reconstructions:
    """An image rebuilt from P numbers of tokens."""

    lengths: list[int]
    psnr: list[float]
    """In dB, against the image at the model's size; see :func:`dove.metrics.psnr`."""
    images: Float[Tensor, "P 3 S S"]
    """In [-1, 1]."""


def reconstruct(
    model: Dove, image: Float[Tensor, "3 S S"], policies: Sequence[LengthPolicy], query: str | None = None
) -> Reconstructions:
    """Rebuild one image, in [-1, 1], at the length that each policy gives it.

    Args:
        model: a tokenizer; a ``QDove`` where there is a query.
        image: at the model's size.
        policies: one for each reconstruction.
        query: what the tokens shall describe first.
    """
    images = image[None].to(model.token_decoder.positions.device)
    encoded = (
        model.encode_each(images, policies, query) if isinstance(model, QDove) else model.encode_each(images, policies)
    )
    tokens = Tokens.cat(encoded)
    rebuilt = model.decode(tokens)
    return Reconstructions(tokens.lengths.tolist(), psnr(rebuilt, images.expand_as(rebuilt)).tolist(), rebuilt)
