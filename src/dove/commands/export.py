"""The command ``dove export``: the encoder for programs without this package or, as ONNX, without PyTorch."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a checkpoint's encoder as an ONNX graph or a torch.export archive: images in, all tokens and lengths out."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A shipped checkpoint, a checkpoint folder or a hub id."""
    output: Path
    """File to write, ending in .onnx or .pt2."""


def run(options: ExportOptions) -> None:
    """Write the file."""
    from dove.integrations.onnx import SUFFIXES, export_encoder
    from dove.tokenizer import Dove

    model = Dove.from_pretrained(options.model)
    if options.output.suffix in SUFFIXES:
        print("tracing the encoder, which takes half a minute or so", file=sys.stderr)
    export_encoder(model, options.output)
    size, tokens, width = model.image_size, model.max_tokens, model.config.token_dim
    print(
        f"{options.output}: images (batch, 3, {size}, {size}) in [-1, 1] to values (batch, {tokens}, {width}), "
        f"lengths (batch,) and margin (batch, {tokens})"
    )
