"""Memory of a training step at full size, counted without computing it: which batch fits onto which card.

    python benchmarks/memory.py --json docs/results/memory.json
    python benchmarks/memory.py --preset dove-14m --perceptual none

Tensors have shapes and no contents (torch's fake tensors), so this takes a minute on any machine. Two things are counted for 8
images and for 16, of which an eighth of the difference is what an image takes:

- kept: what autograd saves for the backward pass (``saved_tensors_hooks``), each storage once, without the weights;
- peak: all storages alive at the worst moment of forward and backward, those of blocks that are computed again included.

A step is the tokenizer at all K tokens and Eq. 2 with a VGG-16 in the place of LPIPS, without the discriminator. bf16 is
that of a GPU's autocast, which computes norms in fp32. Beside that a training holds five fp32 numbers a parameter: weight,
gradient, two moments, moving average. What kernels take for themselves and what the allocator leaves unused is not counted;
a tenth of a card is left for it.
"""

import argparse
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from output import write_report
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torchvision.models import vgg16

from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.memory import checkpoint_activations
from dove.training.presets import PRESETS

BATCHES = (8, 16)
CARDS = {"24 GB": 24e9, "48 GB": 48e9, "80 GB": 80e9}
USABLE = 0.9
NUMBERS_A_PARAMETER = 5
BYTES = 4


def in_float(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation as a GPU's autocast computes it: in fp32."""

    def run(*args: Any, **kwargs: Any) -> Tensor:
        return operation(*(value.float() if isinstance(value, Tensor) else value for value in args), **kwargs)

    return run


class LiveStorages(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place in self._known:
            return
        size = storage.nbytes()
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self._known.discard(place)
            self.now -= size

        weakref.finalize(storage, gone)


@dataclass(frozen=True)
class Counted:
    """Bytes for some number of images."""

    kept: int
    peak: int


def count(model: Dove, perceptual: nn.Module | None, images: Tensor, precision: str) -> Counted:
    """Count one forward and backward pass."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    live = LiveStorages()
    with ExitStack() as stack:
        stack.enter_context(live)
        if precision == "bf16":
            for name in ("group_norm", "layer_norm"):
                stack.enter_context(patch.object(functional, name, in_float(getattr(functional, name))))
        lower = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with lower, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = losses(model, perceptual, images)
        loss.backward()
    model.zero_grad(set_to_none=True)
    return Counted(sum(kept.values()), live.peak)


def losses(model: Dove, perceptual: nn.Module | None, images: Tensor) -> Tensor:
    """Eq. 2 of images from all their tokens."""
    output = model.generate(images)
    lengths = torch.full((len(images),), model.max_tokens)
    rebuilt = model.reconstruct_from(Tokens(output.values, lengths))
    loss = (rebuilt.float() - images).square().mean() + output.eos.probability.mean()
    if perceptual is not None:
        loss = loss + perceptual(rebuilt).float().square().mean()
    return loss


def measure(preset: str, network: str, precision: str, *, twice: bool) -> dict[str, Any]:
    """One row: a preset with its blocks computed once or twice."""
    config: Any = PRESETS[preset]
    with FakeTensorMode():
        model = Dove(config.model).train()
        model.vqgan.requires_grad_(True)
        perceptual = vgg16(weights=None).features.requires_grad_(False) if network == "vgg16" else None
        if twice:
            checkpoint_activations(model)
        side = config.model.vqgan.image_size
        few, many = (count(model, perceptual, torch.rand(batch, 3, side, side), precision) for batch in BATCHES)
        parameters = sum(weight.numel() for weight in model.parameters())
    more = BATCHES[1] - BATCHES[0]
    each = (many.peak - few.peak) / more
    held = parameters * NUMBERS_A_PARAMETER * BYTES
    fits = {card: max(0, int((size * USABLE - held) // each)) for card, size in CARDS.items()}
    return {
        "preset": preset,
        "precision": precision,
        "activation_checkpointing": twice,
        "kept_gb_per_image": round((many.kept - few.kept) / more / 1e9, 6),
        "peak_gb_per_image": round(each / 1e9, 6),
        "held_gb": round(held / 1e9, 2),
        "images_that_fit": fits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="dove-base")
    parser.add_argument("--perceptual", choices=("vgg16", "none"), default="vgg16")
    options = parser.parse_args()
    rows = [
        measure(options.preset, options.perceptual, precision, twice=twice)
        for precision in ("fp32", "bf16")
        for twice in (False, True)
    ]
    report = {"perceptual": options.perceptual, "torch": torch.__version__, "rows": rows}
    write_report(report, options.json)


if __name__ == "__main__":
    main()
