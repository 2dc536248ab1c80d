"""Environment of a training that several processes share."""

import os
from collections.abc import Mapping

from dove.errors import UserError

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def check_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that this process was launched as one of several in full, or not at all.

    Args:
        environment: variables, of which torchrun and accelerate launch set ``RANKS`` and ``ADDRESS``.

    Raises:
        UserError: if a few of them are left over from something else, or are no ranks.
    """
    stray = [name for name in RANKS if name in environment]
    if not stray:
        return
    advice = f"start with torchrun, or take them away: env -u {' -u '.join(stray)} dove train ..."
    missing = [name for name in RANKS + ADDRESS if name not in environment]
    if missing:
        raise UserError(
            f"the environment has {', '.join(stray)} and not {', '.join(missing)}, so no launcher set them; {advice}"
        )
    values = [environment[name] for name in RANKS]
    if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
        told = ", ".join(f"{name}={value}" for name, value in zip(RANKS, values, strict=True))
        raise UserError(f"the environment has {told}, which is no rank of a process; {advice}")
