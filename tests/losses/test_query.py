"""Eq. 5 to 7 against plain loops over images and boxes."""

import pytest
import torch
from torch.nn.functional import interpolate

from dove.losses.query import (
    early_end_penalty,
    enlarge_boxes,
    inside_boxes,
    irrelevant_loss,
    relevant_loss,
    whole_pixels,
)
from dove.losses.reconstruction import squared_error

SIDE = 16
CASES = {
    "overlapping": [[(1, 2, 8, 6), (4, 4, 9, 9)], [(0, 0, 5, 5)]],
    "at the border": [[(0, 0, 4, 4), (12, 12, 4, 4)], [(0, 10, 16, 6), (15, 0, 1, 16)]],
    "one pixel": [[(3, 7, 1, 1)], [(15, 15, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1)]],
    "everything": [[(0, 0, 16, 16)], [(0, 0, 8, 16), (8, 0, 8, 16)]],
    "ragged": [[(2, 2, 3, 4)] * 5, []],
}


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    images, rebuilt = torch.rand(2, 2, 3, SIDE, SIDE, generator=draws) * 2 - 1
    return rebuilt.requires_grad_(), images


def flat(boxes: list[list[tuple[int, ...]]]) -> tuple[torch.Tensor, torch.Tensor]:
    image_of = [row for row, some in enumerate(boxes) for _ in some]
    return torch.tensor([box for some in boxes for box in some]).float().view(-1, 4), torch.tensor(image_of)


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_plain_loops(name: str) -> None:
    boxes = CASES[name]
    rebuilt, images = pair()
    relevant = relevant_loss(rebuilt, images, *flat(boxes), squared_error)
    irrelevant = irrelevant_loss(rebuilt, images, *flat(boxes))
    (gradient,) = torch.autograd.grad((relevant + 0.3 * irrelevant).sum(), rebuilt)

    expected = []
    for row, some in enumerate(boxes):
        outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
        parts = []
        for x, y, w, h in some:
            cut = [p[row : row + 1, :, y : y + h, x : x + w] for p in (rebuilt, images)]
            large = [interpolate(c, (SIDE, SIDE), mode="bilinear", align_corners=False) for c in cut]
            parts.append((large[0] - large[1]).square().mean())
            outside[y : y + h, x : x + w] = False
        error = (rebuilt[row] - images[row]).square().mean(0)[outside]
        expected.append(
            ((sum(parts) / len(parts)) if parts else torch.tensor(0.0), error.mean() if len(error) else 0.0)
        )
    (reference,) = torch.autograd.grad(sum(a + 0.3 * b for a, b in expected), rebuilt)
    torch.testing.assert_close(relevant, torch.stack([torch.as_tensor(a) for a, _ in expected]))
    torch.testing.assert_close(irrelevant, torch.stack([torch.as_tensor(b) for _, b in expected]))
    torch.testing.assert_close(gradient, reference)


def test_fractions_of_pixels_grow_to_whole_ones_inside_the_image() -> None:
    grown = whole_pixels(torch.tensor([[1.5, 2.2, 2.0, 0.1], [15.9, -1.0, 3.0, 40.0]]), SIDE)
    assert grown.tolist() == [[1, 2, 3, 1], [15, 0, 1, 16]]


def test_enlarged_boxes_hold_nothing_of_their_surroundings() -> None:
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[:, :, 4:8, 4:8] = 1
    assert enlarge_boxes(images, torch.tensor([[4.0, 4, 4, 4]]), torch.tensor([0])).eq(1).all()


def test_boxes_of_the_paper_s_images_need_no_more_memory_than_images() -> None:
    images, boxes = torch.rand(2, 3, 256, 256), torch.tensor([[3.0, 4, 100, 50], [0, 0, 256, 256], [9, 9, 1, 1]])
    image_of = torch.tensor([0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        enlarged = enlarge_boxes(images, boxes, image_of)
    assert enlarged.dtype == torch.float32
    cut = images[:1, :, 4:54, 3:103]
    expected = torch.nn.functional.interpolate(cut, (256, 256), mode="bilinear")[0]
    torch.testing.assert_close(enlarged[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(enlarged[1], images[1], atol=1e-5, rtol=0)


def test_inside_is_the_union() -> None:
    boxes, image_of = flat(CASES["overlapping"])
    inside = inside_boxes(boxes, image_of, 3, SIDE)
    assert inside.sum((1, 2)).tolist() == [8 * 6 + 81 - 5 * 4, 25, 0]


def test_penalty_asks_for_an_earlier_end_below_the_threshold_alone() -> None:
    probability = torch.tensor([[0.5, 0.1, 0.2, 0.3]] * 3)
    penalty = early_end_penalty(probability, torch.tensor([3] * 3), torch.tensor([0.125, 0.5, 0.25]), threshold=0.25)
    torch.testing.assert_close(penalty, torch.tensor([-(0.1 + 0.2) / 3, 0.0, 0.0]))
