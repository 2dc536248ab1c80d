"""Floating-point operations of a language model that reads the tokens of an image."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dove.evaluation.operations import count_operations

VICUNA_7B = (
    LlamaConfig()
)  # Its defaults are the sizes of the first Llama with 7 thousand million parameters, and of Vicuna-7B


def make_language_model(config: LlamaConfig = VICUNA_7B) -> LlamaForCausalLM:
    """Make a Llama on the meta device: its sizes without its memory."""
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def language_model_operations(model: LlamaForCausalLM, positions: int) -> int:
    """Count the operations of one forward of a Llama over ``positions`` vectors, with its output layer at all of them."""
    inputs = torch.empty(1, positions, model.config.hidden_size, device="meta")
    # Given ready-made, or the library would look into the numbers for its shape.
    mask = torch.ones(1, 1, positions, positions, dtype=torch.bool, device="meta").tril()
    return count_operations(lambda: model(inputs_embeds=inputs, attention_mask=mask, use_cache=False))
