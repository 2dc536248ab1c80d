"""Length policies: one ``LengthPolicy`` type for every way to ask for a number of tokens per image.

A further policy is a subclass with its own ``parse``, listed in ``POLICIES``. Callers need no change: they pass what any
policy may look at, the EOS scores and a ``Trial`` to rebuild the images from chosen lengths.
"""

from collections.abc import Sequence

from dove.errors import UserError
from dove.lengths.budget import Budget
from dove.lengths.plain import Auto, Fixed
from dove.lengths.policy import LengthPolicy, Trial
from dove.lengths.quality import PerceptualAtMost, PsnrAtLeast, SearchPsnr

__all__ = [
    "POLICIES",
    "Auto",
    "Budget",
    "Fixed",
    "LengthPolicy",
    "PerceptualAtMost",
    "PsnrAtLeast",
    "SearchPsnr",
    "Trial",
    "parse_length_policies",
    "parse_length_policy",
]

POLICIES: tuple[type[LengthPolicy], ...] = (Fixed, Auto, PsnrAtLeast, PerceptualAtMost, Budget, SearchPsnr)


def parse_length_policies(requests: Sequence[int | str | LengthPolicy], max_tokens: int) -> tuple[LengthPolicy, ...]:
    """Parse several requests for the same images; see `parse_length_policy`.

    Raises:
        UserError: If there is none, or one of them is not valid.
    """
    if not requests:
        raise UserError("no num_tokens given; pass at least one")
    if isinstance(requests, str):
        raise UserError(f"num_tokens={requests!r} is one request; pass a list of them")
    return tuple(parse_length_policy(request, max_tokens) for request in requests)


def parse_length_policy(request: int | str | LengthPolicy, max_tokens: int) -> LengthPolicy:
    """Parse a request for a number of tokens.

    Args:
        request: a number, one of the written forms of the classes in ``POLICIES``, or a policy.
        max_tokens: capacity K of the model.

    Raises:
        UserError: If it is no policy, or its number of tokens is not from 1 to K.
    """
    if isinstance(request, LengthPolicy):
        request.positions(max_tokens)  # raises where the policy asks for more than K
        return request
    text = str(request).strip().lower()
    for policy in POLICIES:
        if parsed := policy.parse(text, max_tokens):
            return parsed
    forms = "; ".join(policy.syntax.format(max_tokens=max_tokens) for policy in POLICIES)
    raise UserError(f"num_tokens={str(request)!r} is not understood; pass {forms}")
