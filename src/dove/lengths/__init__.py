"""How many tokens each image gets: one ``LengthPolicy`` type for everything a user can ask for.

A further policy is a further subclass with a ``parse`` of its own, entered in ``POLICIES``. Callers need no change:
they hand over what any policy may look at, the EOS scores and a ``Trial`` to rebuild the images from chosen lengths.
"""

from collections.abc import Sequence

from dove.errors import UserError
from dove.lengths.budget import Budget
from dove.lengths.plain import Auto, Fixed
from dove.lengths.policy import JointPolicies, LengthPolicy, Trial
from dove.lengths.quality import PerceptualAtMost, PsnrAtLeast, SearchPsnr

__all__ = [
    "POLICIES",
    "Auto",
    "Budget",
    "Fixed",
    "JointPolicies",
    "LengthPolicy",
    "PerceptualAtMost",
    "PsnrAtLeast",
    "SearchPsnr",
    "Trial",
    "parse_length_policies",
    "parse_length_policy",
]

POLICIES: tuple[type[LengthPolicy], ...] = (Fixed, Auto, PsnrAtLeast, PerceptualAtMost, Budget, SearchPsnr)


def parse_length_policies(requests: Sequence[int | str | LengthPolicy], max_tokens: int) -> JointPolicies:
    """Parse several requests for the same images; see :func:`parse_length_policy`.

    Raises:
        UserError: if there is none, or as for one.
    """
    if not requests:
        raise UserError("no num_tokens given; pass at least one")
    return JointPolicies(tuple(parse_length_policy(request, max_tokens) for request in requests), max_tokens)


def parse_length_policy(request: int | str | LengthPolicy, max_tokens: int) -> LengthPolicy:
    """The policy a user asks for.

    Args:
        request: a number, one of the written forms of the classes in ``POLICIES``, or a policy.
        max_tokens: capacity K of the model.

    Raises:
        UserError: for what is no policy, or a number of tokens that is not from 1 to K.
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
