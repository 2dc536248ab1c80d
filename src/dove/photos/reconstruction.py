"""Reconstructions of an image at several lengths from one encoding."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dove.errors import UserError
from dove.lengths import LengthPolicy
from dove.metrics import psnr
from dove.models.eos import EosScores
from dove.protocol import ScoresLengths, Tokenizer, device_of
from dove.query.tokenizer import QDove, encode_asked
from dove.tokens import Tokens


@dataclass(frozen=True)
class Reconstructions:
    """Image rebuilt from P numbers of tokens."""

    lengths: list[int]
    psnr: list[float]
    """PSNR in dB, against the image at the model's size; see :func:`dove.metrics.psnr`."""
    images: Float[Tensor, "P 3 S S"]
    """(P, 3, S, S) in [-1, 1]."""


def reconstruct(
    model: Tokenizer,
    image: Float[Tensor, "3 S S"],
    policies: Sequence[LengthPolicy],
    query: str | None = None,
    given: Sequence[int | None] | None = None,
) -> Reconstructions:
    """Rebuild one image, in [-1, 1], at the length that each policy gives it.

    Args:
        model: a tokenizer; a ``QDove`` where there is a query.
        image: (3, S, S) in [-1, 1], of the model's size.
        policies: one for each reconstruction.
        query: text that the tokens describe first; None for the whole image.
        given: length that ``choose_together`` found for this image, by policy; None where the policy chooses.
    """
    images = image[None].to(device_of(model))
    lengths = [None if length is None else torch.tensor([length]) for length in given or [None] * len(policies)]
    tokens = Tokens.cat(encode_given(model, images, policies, lengths, query))
    rebuilt = model.decode(tokens)
    return Reconstructions(tokens.lengths.tolist(), psnr(rebuilt, images.expand_as(rebuilt)).tolist(), rebuilt)


def choose_together(
    model: Tokenizer,
    batches: Iterable[Float[Tensor, "B 3 S S"]],
    policies: Sequence[LengthPolicy],
    query: str | None = None,
) -> list[Int[Tensor, " M"] | None]:
    """Choose lengths by the policies that weigh all M images against one another, such as a budget; None for the others.

    Keeps the EOS scores of the images and nothing else. Where every policy looks at each image alone, ``batches`` is not
    touched.

    Raises:
        UserError: If the model does not predict what a policy needs; raised after the first batch.
    """
    collective = [policy for policy in policies if policy.collective]
    scores: list[EosScores] = []
    for images in batches if collective else ():
        scores.append(score_lengths(model, images, query)[1])
        if len(scores) == 1:
            for policy in collective:
                policy.lengths(scores[0])
    if not scores:
        return [None] * len(policies)
    together = concatenate(scores)
    return [policy.lengths(together).cpu() if policy.collective else None for policy in policies]


def encode_given(
    model: Tokenizer,
    images: Float[Tensor, "B 3 S S"],
    policies: Sequence[LengthPolicy],
    given: Sequence[Int[Tensor, " B"] | None],
    query: str | None = None,
) -> list[Tokens]:
    """Encode images by several policies; a length in ``given`` replaces the policy's choice."""
    requests = [
        policy if lengths is None else model.max_tokens for policy, lengths in zip(policies, given, strict=True)
    ]
    encoded = encode_asked(model, images, requests, query)
    return [
        tokens if lengths is None else Tokens.cut(tokens.values, lengths.to(tokens.values.device))
        for tokens, lengths in zip(encoded, given, strict=True)
    ]


def score_lengths(
    model: Tokenizer, images: Float[Tensor, "B 3 S S"], query: str | None = None
) -> tuple[Float[Tensor, "B K D"], EosScores]:
    """Encode images to all tokens, and score each number of them; see :class:`dove.protocol.ScoresLengths`.

    Raises:
        UserError: If the model scores no lengths.
    """
    if not isinstance(model, ScoresLengths):
        raise UserError("this model predicts no PSNR, which a budget needs; pass numbers of tokens")
    images = images.to(device_of(model))
    return model.score_lengths(images, query) if isinstance(model, QDove) else model.score_lengths(images)


def concatenate(scores: Sequence[EosScores]) -> EosScores:
    """Concatenate the scores of several batches."""
    columns = {field.name: [getattr(part, field.name) for part in scores] for field in fields(EosScores)}
    joined: dict[str, Any] = {name: None if parts[0] is None else torch.cat(parts) for name, parts in columns.items()}
    return EosScores(**joined)
