"""Language models: new, from transformers, with adapters, or from the folder of a vision-language model."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from dove.errors import UserError
from dove.evaluation.common import load_subject
from dove.protocol import Tokenizer
from dove.vlm.config import LanguageModelConfig, LoraConfig, VLMConfig

LANGUAGE_MODEL_FOLDER = "language_model"


def small_language_model(config: LanguageModelConfig, text_tokenizer: Any) -> nn.Module:
    """A Llama with random weights."""
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(text_tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_positions,
            initializer_range=config.hidden_size**-0.5,
            bos_token_id=text_tokenizer.bos_token_id,
            eos_token_id=text_tokenizer.eos_token_id,
            pad_token_id=text_tokenizer.pad_token_id,
        )
    )


def load_language_model(name: str) -> tuple[Any, Any]:
    """A language model of transformers and its text tokenizer, in fp32."""
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load the language model {name!r}: {reason}; pass a folder or a hub id") from error


def add_lora(language_model: Any, config: LoraConfig) -> Any:
    """The language model with low-rank adapters, which alone learn."""
    try:
        from peft import LoraConfig as Adapters
        from peft import get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs peft; pip install 'dove-encoder[vlm]', or leave out --lora.rank") from error
    adapters = Adapters(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules="all-linear", bias="none"
    )
    with warnings.catch_warnings():
        # peft asks under the old name; transformers has a new one.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(language_model, adapters)


def saved_language_model(folder: Path, config: VLMConfig) -> tuple[Any, Any]:
    """The language model of a saved vision-language model, still without its weights, and its text tokenizer."""
    own = folder / LANGUAGE_MODEL_FOLDER
    if not own.is_dir():
        raise UserError(f"{folder} has no folder {LANGUAGE_MODEL_FOLDER}; pass a complete folder of dove vlm train")
    try:
        # Saved in this form whatever class it had, and Auto would look at the language model's type instead.
        text_tokenizer = PreTrainedTokenizerFast.from_pretrained(own)
        if config.language_model is None:
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(own)), text_tokenizer
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{own} is not a usable language model: {reason}; copy the folder again") from error
    language_model, _ = load_language_model(config.language_model)
    return add_lora(language_model, config.lora), text_tokenizer


def saved_image_tokenizer(folder: Path, config: VLMConfig, override: str | None, device: torch.device) -> Tokenizer:
    """The image tokenizer that a saved vision-language model was trained with."""
    name = override or config.tokenizer
    subject = load_subject(name, device)
    if config.tokenizer_sha256 not in (None, subject.sha256):
        raise UserError(
            f"{folder} was trained for the image tokenizer {config.tokenizer!r} ({config.tokenizer_sha256[:12]}), and "
            f"{name!r} is another ({subject.sha256[:12]}); pass the right one with --tokenizer"
        )
    return subject.tokenizer
