"""Keeping the entries of a codebook in use."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed


class Restarts:
    """Moves entries that no latent has chosen for some steps to latents of the batch ("Jukebox", section 3.1).

    Without it the codebooks of models trained from scratch die: a few entries are near the first latents, only these are
    trained, and all images become the same code.

    With several processes an entry is idle where none of them has chosen it, and moves to a latent of the first one's, so
    that the codebook stays the same on all.

    Args:
        patience: steps without use after which an entry moves; 0 never moves any.
    """

    def __init__(self, size: int, patience: int):
        self.patience = patience
        self.idle = torch.zeros(size, dtype=torch.long)

    @torch.no_grad()
    def step(self, entries: Float[Tensor, "V D"], latents: Float[Tensor, "... D"], ids: Int[Tensor, "..."]) -> int:
        """Count a training step, move what has been idle for too long, and say how many entries moved.

        Args:
            entries: the codebook, changed in place.
            latents: of this step's batch, as they are compared with the entries.
            ids: the entries that they chose.
        """
        if not self.patience:
            return 0
        together = distributed.is_available() and distributed.is_initialized()
        used = torch.zeros(len(self.idle), dtype=torch.int32, device=ids.device)
        used[ids.flatten()] = 1
        if together:
            distributed.all_reduce(used, distributed.ReduceOp.MAX)
        self.idle = torch.where(used.cpu() > 0, 0, self.idle + 1)
        stale = (self.idle >= self.patience).nonzero()[:, 0]
        pool = latents.detach().flatten(0, -2)
        stale = stale[: len(pool)]
        chosen = pool[torch.randperm(len(pool))[: len(stale)].to(pool.device)].to(entries)
        # A bad batch, whose update the trainer may leave out, must not get into the codebook.
        chosen = torch.where(chosen.isfinite().all(-1, keepdim=True), chosen, entries[stale.to(entries.device)])
        if together and len(stale):
            distributed.broadcast(chosen, 0)
        # Behind autograd's back: nobody chose these rows in this step, so their gradient is 0 whatever they hold.
        entries.data[stale.to(entries.device)] = chosen
        self.idle[stale] = 0
        return len(stale)

    def state_dict(self) -> dict[str, Any]:
        """Give the state that a resumed run needs."""
        return {"idle": self.idle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the result of ``state_dict``."""
        self.idle = state["idle"]
