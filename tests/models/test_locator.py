"""Which rectangle a locator chooses."""

import pytest
import torch

from dove.models.locator import EMPTY, Locator, cell_masks
from dove.query.config import RegionConfig
from dove.training.presets import QDOVE_TINY


@pytest.fixture(scope="module")
def locator() -> Locator:
    return Locator(QDOVE_TINY.model, RegionConfig(kind="rectangle", channels=(8, 8, 8)))


def test_a_clear_case_is_the_most_likely_rectangle(locator: Locator) -> None:
    rectangle = torch.tensor([[1, 2, 5, 7]])
    logits = cell_masks(rectangle, locator.side).float() * 20 - 10
    assert torch.equal(locator.best_rectangle(logits), rectangle)
    assert locator.rectangle_scores(logits).argmax(1) == locator.number_of(rectangle)


def test_nothing_likely_is_the_empty_rectangle(locator: Locator) -> None:
    logits = torch.full((1, locator.side**2), -10.0)
    assert torch.equal(locator.best_rectangle(logits), locator.rectangles[[EMPTY]])


def test_the_choice_has_the_largest_expected_overlap(locator: Locator) -> None:
    """Against a plain sum over all rectangles that may be the true one."""
    logits = torch.randn(3, locator.side**2, generator=torch.Generator().manual_seed(0)) * 0.3 - 0.5
    probability = locator.rectangle_scores(logits).softmax(1)
    masks = cell_masks(locator.rectangles, locator.side)
    for row in range(3):
        expected = [
            sum(
                float(probability[row, true])
                * float((masks[true] & mask).sum() / (masks[true] | mask).sum().clamp(min=1))
                for true in probability[row].topk(40).indices.tolist()
            )
            for mask in masks
        ]
        best = torch.tensor(expected).argmax()
        locator.least_overlap = 0.0
        chosen = locator.number_of(locator.best_rectangle(logits[row : row + 1]))
        rest = 1 - float(probability[row].topk(40).values.sum())
        assert expected[chosen] >= expected[best] - rest  # the 40 most likely leave so much open at most


def test_where_no_overlap_pays_the_whole_is_described(locator: Locator) -> None:
    two_places = torch.stack([cell_masks(torch.tensor([place]), 8)[0] for place in ((0, 0, 2, 2), (6, 6, 8, 8))])
    scores = torch.full((1, len(locator.rectangles)), -30.0)
    for mask in two_places:
        scores[0, (cell_masks(locator.rectangles, 8) == mask).all(1)] = 0.0
    locator.rectangle_scores = lambda logits: scores  # type: ignore[method-assign]
    for least, empty in ((0.45, False), (0.55, True)):
        locator.least_overlap = least
        assert bool((locator.best_rectangle(torch.zeros(1, 64)) == 0).all()) == empty
