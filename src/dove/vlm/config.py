"""Settings of vision-language models and of their training. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from dove.config import added
from dove.errors import UserError
from dove.training.config import TrainConfig
from dove.training.presets import load_presets

Prompt = Literal["plain", "vicuna", "chat"]
Query = Literal["null", "question"]
BLIND = "none"
"""In place of a tokenizer: the model sees no image."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A small Llama that starts from random weights, with a byte-level BPE learned from the training texts."""

    vocab_size: int = 384
    """Words of the text tokenizer: 256 bytes, the special ones, and merges."""
    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 384
    max_positions: int = 512
    """Context: image tokens and text together."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning of the language model (needs peft)."""

    rank: int = 0
    """Rank of the adapters; 0 trains the language model itself."""
    alpha: int = 16
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views of the training images, beside the images themselves."""

    count: int = 1
    """Views of every image, the image itself among them."""
    mirror: bool = False
    """Mirror half of the views; wrong where questions speak of left and right or of writing."""
    zoom_out: float = 1.5
    """The picture goes somewhere onto a square of up to so many times its side."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.zoom_out < 1:
            raise UserError(f"views.count={self.count} and views.zoom_out={self.zoom_out} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class VLMConfig:
    """Settings of a saved vision-language model."""

    tokenizer: str
    """The image tokenizer: a shipped name, a folder or a hub id; ``none`` for a model that sees no image."""
    tokenizer_sha256: str | None
    """SHA-256 of the image tokenizer that the connector was trained for."""
    token_dim: int
    """Width D of its tokens."""
    max_tokens: int
    """Its capacity K."""
    image_size: int
    """Side of its images, in pixels."""
    language_model: str | None
    """Folder or hub id whose weights the LoRA adapters are for; None where the model's folder holds all weights."""
    prompt: Prompt = "plain"
    """``plain`` (question, line break, answer), ``vicuna``, or ``chat`` for the language model's own template."""
    num_tokens: str = "auto"
    """The length policy where the caller names none."""
    query: Query = "null"
    """Query of a query-conditioned tokenizer: ``null`` (the whole image) or ``question``."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    @property
    def blind(self) -> bool:
        """True where images are left out."""
        return self.tokenizer == BLIND


@dataclass(frozen=True, kw_only=True)
class VLMTrainConfig(TrainConfig):
    """A training of connector and language model."""

    images: str = ""
    """Folder below which a conversation file's image paths lie."""
    on_missing: Literal["refuse", "skip"] = added("refuse")
    """Reaction to conversations whose images are not there: ``refuse`` the training, or ``skip`` and count them."""
    tokenizer: str = "dove-tiny"
    """The image tokenizer: a shipped name, a folder or a hub id; ``none`` trains on the questions alone."""
    num_tokens: tuple[str, ...] = ("auto",)
    """Length policies; each batch draws one."""
    query: Query = "null"
    """Query of a query-conditioned tokenizer: ``null`` (the whole image) or ``question``."""
    cache_tokens: bool = True
    """Encode all images once before the first step and keep their tokens in memory."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Views of the training images; each image of each step draws one of them."""
    questions_per_image: int | None = None
    """At most so many of an image's independent questions in one step, drawn at random; None for all."""
    answer_balance: float = added(0.0)
    """Preference of ``questions_per_image`` for rare answers: an answer's chance goes with its frequency to the power of minus
    this. 0 treats all questions alike, 1 all answers."""
    language_model: str | None = None
    """Folder or hub id of a causal language model; None builds ``scratch`` from random weights."""
    scratch: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    prompt: Prompt = "plain"
    lora: LoraConfig = field(default_factory=LoraConfig)
    connector_lr: float = 2e-4
    """Peak learning rate of the connector; ``optim.lr`` is the language model's."""

    def __post_init__(self) -> None:
        if not self.num_tokens:
            raise UserError("num_tokens names no length policy; pass auto, a number, or several of them")
        if self.answer_balance < 0:
            raise UserError(f"answer_balance={self.answer_balance} must be at least 0")
        if self.answer_balance and self.questions_per_image is None:
            raise UserError("answer_balance chooses among questions; pass --questions-per-image with it")
        if self.language_model is None and self.lora.rank:
            raise UserError("LoRA adapts a trained language model; pass --language-model with --lora.rank")
        if self.optim.lr <= 0:
            raise UserError(f"optim.lr={self.optim.lr} must be above 0")


VLM_PRESETS = load_presets("vlm.yaml", {"vlm": VLMTrainConfig})
"""Every preset of ``dove vlm train`` by name."""
