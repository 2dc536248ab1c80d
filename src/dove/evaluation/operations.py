"""Floating-point operations of a tokenizer.

Torch's own counter counts matrix products, convolutions and attention, two operations for each multiply-add. Norms,
activations and other element-wise work are left out, as is usual in the literature. The numbers themselves do not matter,
so the modules run on torch's meta device, which holds none.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
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


def encode_operations(tokenizer: Tokenizer, positions: int) -> int:
    """Count the operations that convert one image to as many tokens, whether or not all are kept.

    A tokenizer that is neither a ``Dove`` nor of fixed length is run on noise: its operations may depend on the numbers.
    """
    images = _image(tokenizer.image_size, "meta")
    if isinstance(tokenizer, Dove):
        model = on_meta(tokenizer)
        return count_operations(lambda: model.generate(images, positions))
    if isinstance(tokenizer, FixedLength):
        baseline = on_meta(tokenizer)
        return count_operations(lambda: baseline.quantized_values(images))
    images = _image(tokenizer.image_size, device_of(tokenizer))
    return count_operations(lambda: tokenizer.encode(images, positions))


def decode_operations(tokenizer: Tokenizer, positions: int) -> int:
    """Count the operations that convert the tokens of one image to pixels."""
    if isinstance(tokenizer, Dove):
        model = on_meta(tokenizer)
        values = torch.empty(1, positions, tokenizer.config.token_dim, device="meta")
        tokens = Tokens(values, torch.empty(1, dtype=torch.long, device="meta"))
        return count_operations(lambda: model.reconstruct_from(tokens))
    if isinstance(tokenizer, FixedLength):
        baseline, values = on_meta(tokenizer), torch.empty(1, tokenizer.max_tokens, tokenizer.token_dim, device="meta")
        return count_operations(lambda: baseline.reconstruct_from(values))
    tokens = tokenizer.encode(_image(tokenizer.image_size, device_of(tokenizer)), positions)
    return count_operations(lambda: tokenizer.decode(tokens))


def _image(side: int, device: torch.device | str) -> Float[Tensor, "1 3 S S"]:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
