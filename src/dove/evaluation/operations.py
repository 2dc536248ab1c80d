"""Floating-point operations of a tokenizer.

Torch's own counter counts matrix products, convolutions and attention, two operations for each multiply-add. Norms,
activations and other element-wise work are left out, as is usual in the literature. The numbers themselves do not matter,
so the modules run on torch's meta device, which holds none.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dove.baselines.adapter import FixedLength
from dove.protocol import Tokenizer, device_of
from dove.tokenizer import Dove
from dove.tokens import Tokens

Module = TypeVar("Module", bound=nn.Module)


def count_operations(run: Callable[[], object]) -> int:
    """Count the floating-point operations of a call, two for each multiply-add."""
    # The counter does not know the fused attention of CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def on_meta(module: Module) -> Module:
    """Copy a module to the meta device, where it takes no memory; the weights are never copied."""
    shells: dict[int, object] = {}
    for parameter in module.parameters():
        shells[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        shells[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, shells)


def tokenizer_operations(tokenizer: Tokenizer, positions: int) -> tuple[int, int]:
    """Count the operations that convert one image to as many tokens, whether or not all are kept, and those back to pixels.

    A tokenizer that is neither a ``Dove`` nor of fixed length is run on noise: its operations may depend on the numbers.
    """
    side = tokenizer.image_size
    noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encode: Callable[[], object]
    decode: Callable[[], object]
    if isinstance(tokenizer, Dove):
        model, images = on_meta(tokenizer), noise.to("meta")
        values = torch.empty(1, positions, tokenizer.config.token_dim, device="meta")
        tokens = Tokens(values, torch.empty(1, dtype=torch.long, device="meta"))
        encode, decode = partial(model.generate, images, positions), partial(model.reconstruct_from, tokens)
    elif isinstance(tokenizer, FixedLength):
        baseline, images = on_meta(tokenizer), noise.to("meta")
        values = torch.empty(1, tokenizer.max_tokens, tokenizer.token_dim, device="meta")
        encode, decode = partial(baseline.quantized_values, images), partial(baseline.reconstruct_from, values)
    else:
        images = noise.to(device_of(tokenizer))
        encode, decode = (
            partial(tokenizer.encode, images, positions),
            partial(tokenizer.decode, tokenizer.encode(images, positions)),
        )
    return count_operations(encode), count_operations(decode)
