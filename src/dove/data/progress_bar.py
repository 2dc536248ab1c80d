"""Progress of long work: a bar in a terminal, a line every half minute anywhere else."""

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

INTERVAL = 30.0
"""Seconds between two lines in a log. Work that takes less writes none."""
LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {elapsed} gone, {remaining} left{postfix}"


class LogStream(io.TextIOBase):
    """Stream for tqdm where standard error is no terminal: its texts as lines, without carriage returns and padding."""

    def write(self, text: str) -> int:
        """Write a line, if there is anything on it."""
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)
        return len(text)


class ProgressBar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """Bar of tqdm, with tqdm's settings, which goes away at its end; or lines in a log."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str = "done",
        *,
        total: int | None = None,
        unit: str = "image",
        **settings: Any,
    ):
        if not sys.stderr.isatty():
            settings |= {"file": LogStream(), "bar_format": LINE, "delay": INTERVAL, "mininterval": INTERVAL}
            settings["maxinterval"] = 2 * INTERVAL
        super().__init__(iterable, desc, total=total, unit=unit, **{"leave": False} | settings)
