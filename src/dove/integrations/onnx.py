"""Export of the encoder as a program of its own: a torch.export archive or an ONNX graph, for batches of any size."""

import warnings
from copy import deepcopy
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dove.errors import UserError, replacing
from dove.tokenizer import Dove

SUFFIXES = (".onnx", ".pt2")
MOST_IMAGES = 1 << 16  # Upper bound of the batch, which the exporter needs
OUTPUTS = ("values", "lengths", "margin")
"""Outputs of the program: all K tokens, (B, K, D), of which the first n are the encoding to n tokens; lengths up to each
image's own EOS, (B,), as ``encode(images, "auto")`` gives; and the margin of EOS over the best other choice at each position,
(B, K), for other stopping rules."""


class Encoder(nn.Module):
    """Module from images to tokens as plain tensors."""

    def __init__(self, model: Dove):
        super().__init__()
        self.model = deepcopy(model)
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.dtype == torch.int32:  # ONNX gathers by 64-bit indices alone
                    module.register_buffer(name, buffer.long())

    def forward(
        self, images: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "B K D"], Int[Tensor, " B"], Float[Tensor, "B K"]]:
        """Compute the ``OUTPUTS`` for images in [-1, 1]."""
        output = self.model.generate(images)
        margin = output.eos.margin
        capacity = margin.shape[1]
        # The first position from the second on where EOS wins; as sums, which every runtime knows, not as a search.
        ended = (margin[:, 1:] > 0).long().cumsum(1) > 0
        lengths = capacity - ended.long().sum(1)
        return output.values, lengths, margin


def export_encoder(model: Dove, file: Path) -> None:
    """Write the encoder of a model, in fp32 and on the CPU, to a file ``.onnx`` (needs onnxscript) or ``.pt2``."""
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file} ends in neither {' nor '.join(SUFFIXES)}")
    if type(model) is not Dove:
        raise UserError(f"a {type(model).__name__} takes more than images; only models without queries are exported")
    encoder = Encoder(model.eval())
    images = torch.zeros(2, 3, model.image_size, model.image_size)
    batch = {"images": {0: torch.export.Dim("batch", min=1, max=MOST_IMAGES)}}
    with replacing(file) as scratch, torch.no_grad():
        program = torch.export.export(encoder, (images,), dynamic_shapes=batch)
        if file.suffix == ".pt2":
            torch.export.save(program, scratch)
        else:
            _save_onnx(program, scratch)


def _save_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("ONNX needs onnxscript; install it with: pip install 'dove-encoder[export]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        converted = torch.onnx.export(
            program, input_names=["images"], output_names=list(OUTPUTS), dynamo=True, verbose=False
        )
        assert converted is not None
        converted.save(str(file), external_data=False)
