"""Work is ended in the middle of a call, in its own thread alone, and the model goes on as if it had never begun."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import torch
from torch import Tensor

from dove import Dove, Tokens, UserError, optimize
from dove.cancellation import Cancelled, cancellable


def operations(model: Dove, images: Tensor) -> int:
    """How often the question is asked while images go through the model and back."""
    asked = count()
    with cancellable(lambda: next(asked) < 0):
        model.decode(model.encode(images, 8))
    return next(asked)


def assert_same(found: Tokens, expected: Tokens) -> None:
    assert torch.equal(found.lengths, expected.lengths)
    assert torch.equal(found.values, expected.values)


@pytest.mark.parametrize("fast", [False, True])
def test_wherever_it_is_cancelled_the_model_goes_on(tiny_dove: Dove, images: Tensor, fast: bool) -> None:
    model = optimize(tiny_dove, "fp32") if fast else tiny_dove
    expected = model.encode(images, 8)
    rebuilt = model.decode(expected)
    total = operations(model, images)
    assert total > 100  # many places, all through the networks
    for place in (0, 1, 2, *range(3, total, total // 9), total - 1):
        asked = count()
        with pytest.raises(Cancelled), cancellable(lambda asked=asked, place=place: next(asked) >= place):
            model.decode(model.encode(images, 8))
        assert next(asked) == place + 1  # nothing was tried behind it
        assert torch.is_grad_enabled()
        tokens = model.encode(images, 8)
        assert_same(tokens, expected)
        assert torch.equal(model.decode(tokens), rebuilt)


def test_a_thread_is_cancelled_and_the_others_are_not(tiny_dove: Dove, images: Tensor) -> None:
    expected = tiny_dove.encode(images, "auto")
    stop, working = threading.Event(), threading.Event()

    def endless() -> None:
        with cancellable(stop.is_set):
            while True:
                tiny_dove.encode(images, "auto")
                working.set()

    def others() -> list[Tokens]:
        return [tiny_dove.encode(images, "auto") for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        cancelled = pool.submit(endless)
        assert working.wait(60)
        undisturbed = pool.submit(others)
        stop.set()
        with pytest.raises(Cancelled):
            cancelled.result(60)
        for tokens in undisturbed.result(60):
            assert_same(tokens, expected)


def test_behind_the_block_nothing_is_asked(tiny_dove: Dove, images: Tensor) -> None:
    stop = threading.Event()
    with cancellable(stop.is_set):
        expected = tiny_dove.encode(images, 4)
    stop.set()
    assert_same(tiny_dove.encode(images, 4), expected)


def test_cancelled_is_no_mistake_of_the_user() -> None:
    assert not issubclass(Cancelled, UserError)
