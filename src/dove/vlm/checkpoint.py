"""Saved vision-language models: config.json, model.safetensors, and the language model's settings and text tokenizer."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from dove.checkpoint import load_checkpoint, load_weights, resolve_checkpoint, save_checkpoint
from dove.errors import UserError
from dove.evaluation.common import load_subject
from dove.protocol import Tokenizer
from dove.runtime import select_device
from dove.vlm.config import LanguageModelConfig, LoraConfig, VLMConfig

if TYPE_CHECKING:
    from dove.vlm.model import VisionLanguageModel

LANGUAGE_MODEL_FOLDER = "language_model"


def small_language_model(config: LanguageModelConfig, text_tokenizer: Any) -> nn.Module:
    """A Llama with random weights."""
    model: nn.Module = AutoModelForCausalLM.from_config(
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
    return model


def load_language_model(kind: "type[VisionLanguageModel]", name: str) -> tuple[Any, Any]:
    """A language model of transformers and its text tokenizer, in fp32."""
    if (Path(name) / LANGUAGE_MODEL_FOLDER).is_dir():
        seeing = load_vlm(kind, name, device="cpu")
        return seeing.language_model.train(), seeing.text_tokenizer
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


def stored_weights(model: "VisionLanguageModel") -> dict[str, Tensor]:
    """Weights that a folder holds: each tensor once, and of a language model with adapters the adapters alone."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:
            continue
        if model.config.lora.rank and name.startswith("language_model.") and "lora_" not in name:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor
    return kept


def save_vlm(
    model: "VisionLanguageModel", folder: str | Path, *, dtype: torch.dtype | None = None, card: str | None = None
) -> None:
    """See ``VisionLanguageModel.save_pretrained``."""
    folder = Path(folder)
    save_checkpoint(folder, model.config, stored_weights(model), dtype=dtype, card=card)
    try:
        model.language_model.config.save_pretrained(folder / LANGUAGE_MODEL_FOLDER)
        model.text_tokenizer.save_pretrained(folder / LANGUAGE_MODEL_FOLDER)
    except OSError as error:
        raise UserError(f"cannot save to {folder}: {error.strerror or error}; free some space") from error


def load_vlm(
    kind: "type[VisionLanguageModel]", name: str | Path, *, tokenizer: str | None = None, device: str = "auto"
) -> "VisionLanguageModel":
    """See ``VisionLanguageModel.from_pretrained``."""
    target = select_device(device)
    folder = resolve_checkpoint(name)
    config, weights = load_checkpoint(folder, VLMConfig)
    language_model, text_tokenizer = _language_model(kind, folder, config)
    image_tokenizer = None if config.blind else _image_tokenizer(folder, config, tokenizer, target)
    model = kind(config, language_model, text_tokenizer, image_tokenizer)
    expected = stored_weights(model)
    twins = {tensor.data_ptr(): key for key, tensor in expected.items()}
    for key, tensor in model.state_dict().items():
        if key not in expected:  # tied to a stored tensor, or a base model's under adapters
            weights[key] = weights.get(twins.get(tensor.data_ptr(), ""), tensor)
    load_weights(model, weights, folder)
    return model.to(target).eval()


def _language_model(kind: "type[VisionLanguageModel]", folder: Path, config: VLMConfig) -> tuple[Any, Any]:
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
    language_model, _ = load_language_model(kind, config.language_model)
    return add_lora(language_model, config.lora), text_tokenizer


def _image_tokenizer(folder: Path, config: VLMConfig, override: str | None, device: torch.device) -> Tokenizer:
    name = override or config.tokenizer
    subject = load_subject(name, device)
    if config.tokenizer_sha256 not in (None, subject.sha256):
        raise UserError(
            f"{folder} was trained for the image tokenizer {config.tokenizer!r} ({config.tokenizer_sha256[:12]}), and "
            f"{name!r} is another ({subject.sha256[:12]}); pass the right one with --tokenizer"
        )
    return subject.tokenizer
