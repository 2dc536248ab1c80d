"""Entries that nobody chooses move to where latents are."""

import json
from pathlib import Path

import torch
from torch import distributed

from dove.training.codebook import Restarts


def test_idle_entries_move_after_the_patience_and_used_ones_stay() -> None:
    entries = torch.arange(4.0)[:, None].repeat(1, 2)
    latents = torch.full((1, 3, 2), 9.0)
    restarts = Restarts(4, patience=2)
    ids = torch.tensor([[1, 1, 2]])
    assert restarts.step(entries, latents, ids) == 0
    assert restarts.step(entries, latents, ids) == 2
    assert entries.tolist() == [[9, 9], [1, 1], [2, 2], [9, 9]]
    assert restarts.step(entries, latents, ids) == 0  # a new chance
    again = Restarts(4, patience=2)
    again.load_state_dict(restarts.state_dict())
    assert again.step(entries, latents, ids) == 2


def test_no_more_entries_move_than_there_are_latents() -> None:
    entries = torch.zeros(10, 2)
    assert Restarts(10, patience=1).step(entries, torch.ones(1, 3, 2), torch.tensor([[0, 0, 0]])) == 3
    assert entries.sum() == 6


def test_latents_that_are_not_finite_stay_out_of_the_codebook() -> None:
    entries = torch.ones(8, 2)
    latents = torch.full((1, 8, 2), float("nan"))
    Restarts(8, patience=1).step(entries, latents, torch.zeros(1, 8, dtype=torch.long))
    assert entries.tolist() == [[1.0, 1.0]] * 8


def test_patience_0_never_moves_any() -> None:
    entries = torch.zeros(2, 2)
    restarts = Restarts(2, patience=0)
    assert sum(restarts.step(entries, torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.long)) for _ in range(9)) == 0


def restart_on(rank: int, folder: str) -> None:
    """One of two ranks: its latents are all ``rank``, and it chooses the entry ``rank``."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    entries, restarts = torch.full((4, 1), 9.0), Restarts(4, patience=2)
    latents, ids = torch.full((2, 1), float(rank)), torch.full((2,), rank)
    moved = [restarts.step(entries, latents, ids) for _ in range(2)]
    Path(folder, f"{rank}.json").write_text(json.dumps([moved, entries.flatten().tolist()]), encoding="utf-8")
    distributed.destroy_process_group()


def test_two_ranks_keep_one_codebook(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(restart_on, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [[0, 2], [9.0, 9.0, 0.0, 0.0]]
