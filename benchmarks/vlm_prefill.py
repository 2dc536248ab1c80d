"""Prefill of a language model by number of image tokens: seconds where memory allows, operations counted where not.

    python benchmarks/vlm_prefill.py [--shape 1b] [--image-tokens 6 64 256] [--text-tokens 32] [--repeats 3] [--json FILE]

The paper's Table 4 has the tokenizer in front; this is the language model alone. Weights are constants, because time does not
depend on them; operations are counted on the meta device, without memory.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

SHAPES = {
    "1b": LlamaConfig(
        hidden_size=2048,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        intermediate_size=5632,
        vocab_size=32000,
    ),
    "vicuna-7b": LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        intermediate_size=11008,
        vocab_size=32000,
        max_position_embeddings=4096,
    ),
}


def make_model(shape: str, device: str) -> torch.nn.Module:
    """A model of that shape in bf16; on a real device every weight is the same small number."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16).eval()
    if device == "meta":
        return model
    model = model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.data.fill_(1e-3)
    rotary = model.model.rotary_emb
    rotary.inv_freq = torch.linspace(1, 0.01, len(rotary.inv_freq))  # a buffer, which to_empty leaves undefined
    return model


@torch.no_grad()
def prefill(model: torch.nn.Module, positions: int) -> None:
    """One forward that fills the cache and gives the first answer word."""
    width = model.config.hidden_size
    embedded = torch.full((1, positions, width), 0.01, dtype=torch.bfloat16, device=model.device)
    model(inputs_embeds=embedded, use_cache=True, logits_to_keep=1)


def count(shape: str, positions: int) -> float:
    """Operations of a prefill in tera."""
    model = make_model(shape, "meta")
    with FlopCounterMode(display=False) as counter:
        prefill(model, positions)
    return counter.get_total_flops() / 1e12


def measure(model: torch.nn.Module, positions: int, repeats: int) -> float:
    """Median seconds of a prefill, after one to warm up."""
    prefill(model, positions)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        prefill(model, positions)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--image-tokens", type=int, nargs="+", default=[6, 32, 64, 122, 256])
    parser.add_argument("--text-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="0 counts operations only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = make_model(options.shape, "cpu") if options.repeats else None
    rows = []
    for image_tokens in options.image_tokens:
        positions = image_tokens + options.text_tokens
        row = {
            "shape": options.shape,
            "image_tokens": image_tokens,
            "tflops": round(count(options.shape, positions), 3),
        }
        if model is not None:
            row["seconds"] = round(measure(model, positions, options.repeats), 3)
        rows.append(row)
        print(row, flush=True)
    report = {
        "rows": rows,
        "text_tokens": options.text_tokens,
        "precision": "bf16",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
