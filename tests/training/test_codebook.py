"""Entries that nobody chooses move to where latents are."""

import torch

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


def test_patience_0_never_moves_any() -> None:
    entries = torch.zeros(2, 2)
    restarts = Restarts(2, patience=0)
    assert sum(restarts.step(entries, torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.long)) for _ in range(9)) == 0
