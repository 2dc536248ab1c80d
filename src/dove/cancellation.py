"""Work that a serving program no longer needs: ended in the middle of ``encode`` or ``decode``."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Cancelled(Exception):
    """The work inside ``cancellable`` was no longer wanted. No mistake of the user's, so no ``UserError``."""


class cancellable(TorchFunctionMode):  # noqa: N801 - used as a function, as torch.no_grad is
    """Context in which this thread's work ends before its next operation on a tensor, once it is no longer wanted.

    Models keep no state of a call, so that one that was ended leaves nothing behind: the same model goes on serving,
    other threads included. Asking costs some ten microseconds for each operation: a fifth of the time of one image alone
    by ``dove-tiny``, less than a tenth of that of 16, and nothing to speak of for a larger model. A single operation, such
    as one convolution, is not interrupted, nor is what runs as one: an ONNX or ``torch.export`` graph.

        stop = threading.Event()
        with dove.cancellable(stop.is_set):  # in the thread that works
            tokens = model.encode(images)

    Args:
        cancelled: asked in front of every operation; True ends the work. An event's ``is_set``, or a deadline:
            ``lambda: time.monotonic() > deadline``.

    Raises:
        Cancelled: from inside the block.
    """

    def __init__(self, cancelled: Callable[[], bool]):
        super().__init__()
        self.cancelled = cancelled

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # What takes no tensor takes no time, and may be what gives back the gradient mode on the way out; nor does a look
        # at a tensor's shape.
        works = bool(args) and isinstance(args[0], Tensor) and func.__name__ != "__get__"
        if works and self.cancelled():
            raise Cancelled("cancelled before it was done")
        return func(*args, **(kwargs or {}))
