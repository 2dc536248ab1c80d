"""Handling of losses and gradients that are not finite: the batch is named, and the run stops or goes on without it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dove.checkpoint import write_files
from dove.errors import UserError, writing

_logger = logging.getLogger(__name__)


class FiniteGuard:
    """Keeps account of updates that were left out because something was not finite.

    Asking a GPU for a number makes the training wait for it, so what a step gave is only kept; ``settle`` looks at it.

    Args:
        output: folder of the run; the batches at fault are named in ``non-finite/`` below it.
        records: gives the records that this rank had at a step.
    """

    def __init__(self, policy: str, output: Path, records: Callable[[int], list[dict[str, Any]]], rank: int):
        self.policy, self.output, self.records, self.rank = policy, output, records, rank
        self.folder = output / "non-finite"
        self.skipped = 0
        self._pending: list[tuple[int, Float[Tensor, ""], dict[str, Tensor]]] = []

    def watch(self, step: int, left_out: Float[Tensor, ""], values: dict[str, Tensor]) -> None:
        """Keep the values of a step for :meth:`settle`."""
        self._pending.append((step, left_out.detach(), {name: value.detach() for name, value in values.items()}))

    def settle(self) -> None:
        """Check the values of the steps since the last call."""
        pending, self._pending = self._pending, []
        at_fault = torch.stack([left_out for _, left_out, _ in pending]).tolist() if pending else []
        for (step, _, values), fault in zip(pending, at_fault, strict=True):
            if fault:
                self._report(step, {name: float(value) for name, value in values.items()})

    def _report(self, step: int, values: dict[str, float]) -> None:
        self.skipped += 1
        # With several ranks all may be finite here and the fault in another rank's batch.
        name, value = next(((n, v) for n, v in values.items() if not abs(v) < float("inf")), ("loss", float("nan")))
        file = self.folder / f"step-{step:08d}-rank-{self.rank}.json"
        content = {"step": step, "rank": self.rank, "values": {n: str(v) for n, v in values.items()}}
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**content, "batch": self.records(step)}, indent=2, ensure_ascii=False) + "\n"
            write_files(file.parent, {file.name: text.encode()})
        if self.policy == "skip":
            _logger.warning("the %s is %s at step %d; its update was left out, see %s", name, value, step, file)
            return
        raise UserError(
            f"the {name} is {value} at step {step} with the batch named in {file}; go on from the last checkpoint in "
            f"{self.output}, or anew where it has none, with a lower --optim.lr, a smaller --optim.clip-norm or "
            "--run.non-finite skip"
        )
