"""Image tokenizer, two-layer MLP, language model: as many positions for an image as it has tokens (section 3.3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dove.checkpoint import load_checkpoint, load_weights, resolve_checkpoint, save_checkpoint
from dove.errors import UserError, require_text, writing
from dove.protocol import Tokenizer
from dove.query.tokenizer import encode_asked
from dove.runtime import select_device
from dove.tokens import Tokens
from dove.vlm.batch import Layout, lay_out
from dove.vlm.checkpoint import LANGUAGE_MODEL_FOLDER, saved_image_tokenizer, saved_language_model
from dove.vlm.config import VLMConfig
from dove.vlm.images import open_picture, square_pixels
from dove.vlm.text import Encoded, PromptWriter, without_marks


class Connector(nn.ModuleList):
    """Image tokens (D wide) to the language model's input space (H wide): linear, GELU, linear, on standardised tokens.

    A learned bias of each of the K places is added to what the first layer gives.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, token_dim: int, max_tokens: int, hidden_size: int):
        super().__init__([nn.Linear(token_dim, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)])
        self.places = nn.Parameter(torch.zeros(max_tokens, hidden_size))
        self.register_buffer("mean", torch.zeros(max_tokens, token_dim))
        self.register_buffer("deviation", torch.ones(max_tokens, token_dim))

    def forward(self, tokens: Float[Tensor, "n D"], places: Int[Tensor, " n"]) -> Float[Tensor, "n H"]:
        """Project tokens of (n, D) numbers, each at its place from 0 to K - 1, to hidden states of shape (n, H)."""
        first, activation, last = self
        # Not taken up into the first layer: in bf16 the differences between images would be lost beside the mean.
        standardised = (tokens - self.mean[places]) / self.deviation[places]
        return last(activation(first(standardised) + self.places[places]))

    @torch.no_grad()
    def standardise(self, tokens: Float[Tensor, "M K D"]) -> None:
        """Give every dimension of the tokens at every place mean 0 and standard deviation 1 from here on.

        Tokens in descending order of importance differ from place to place by orders of magnitude, in which the
        differences between images would drown.

        Args:
            tokens: all K of M images, of which two or more are needed to change anything.
        """
        if len(tokens) < 2:
            return
        deviation = tokens.std(0)
        least = 0.1 * deviation.mean(1, keepdim=True) + 1e-6  # what is the same in all images says nothing
        self.mean.copy_(tokens.mean(0))
        self.deviation.copy_(deviation.maximum(least))


class VisionLanguageModel(nn.Module):
    """A causal language model that reads image tokens between its words.

    Args:
        config: what it consists of.
        language_model: any causal language model of transformers.
        text_tokenizer: the one that goes with it.
        tokenizer: the image tokenizer, frozen; None for a model that sees no image, or gets tokens alone.
    """

    def __init__(
        self, config: VLMConfig, language_model: Any, text_tokenizer: Any, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__()
        self.config, self.language_model, self.text_tokenizer = config, language_model, text_tokenizer
        hidden_size = language_model.get_input_embeddings().embedding_dim
        self.connector = Connector(config.token_dim, config.max_tokens, hidden_size)
        self.writer = PromptWriter(
            text_tokenizer, config.prompt, blind=config.blind, name=config.language_model or "the language model"
        )
        # In a tuple, it is no submodule: it is neither trained, averaged nor saved again.
        self._frozen = (tokenizer,)

    @property
    def tokenizer(self) -> Tokenizer:
        """The image tokenizer."""
        (found,) = self._frozen
        if found is None:
            raise UserError("this model has no image tokenizer; it answers without looking")
        return found

    @property
    def context(self) -> int | None:
        """Positions that the language model was made for."""
        return getattr(self.language_model.config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.connector.places.device

    def embed(self, layout: Layout, tokens: Tokens | None) -> Float[Tensor, "B P H"]:
        """Word embeddings with the connected image tokens in their places."""
        words: Tensor = self.language_model.get_input_embeddings()(layout.ids.clamp(min=0))
        if tokens is None:
            return words
        tokens = tokens.to(self.device, self.connector.places.dtype)
        seen = self.connector(tokens.values[tokens.mask], tokens.mask.nonzero()[:, 1])
        places = layout.image_positions[..., None].expand_as(words)
        return words.masked_scatter(places, seen.to(words.dtype))

    def forward(self, layout: Layout, tokens: Tokens | None) -> Float[Tensor, "B P V"]:
        """Logits of the next word at every position; a row's don't depend on the other rows."""
        embedded = self.embed(layout, tokens)
        mask: Tensor = layout.visible
        if self.language_model.config._attn_implementation == "eager":  # which adds the mask instead of applying it
            mask = torch.zeros_like(mask, dtype=embedded.dtype).masked_fill(~mask, torch.finfo(embedded.dtype).min)
        output = self.language_model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=layout.positions, use_cache=False
        )
        return output.logits

    @torch.no_grad()
    def generate(
        self,
        conversations: Sequence[Encoded],
        tokens: Tokens | None,
        *,
        max_new_tokens: int = 32,
        keys: Sequence[str] | None = None,
    ) -> list[str]:
        """The most likely answers, word by word with a cache.

        Args:
            conversations: as ``writer`` makes them, each without its last answer.
            tokens: of their images, in order; None where there is no image.
            max_new_tokens: most words of an answer.
            keys: names of the conversations, for messages.

        Raises:
            UserError: if a conversation does not fit the context, naming it.
        """
        lengths = [] if tokens is None else tokens.lengths.tolist()
        context = None if self.context is None else self.context - max_new_tokens
        layout = lay_out(conversations, lengths, pad_left=True, keys=keys, context=context).to(self.device)
        pad = self.text_tokenizer.pad_token_id
        words = self.language_model.generate(
            inputs_embeds=self.embed(layout, tokens),
            attention_mask=(layout.segments >= 0).long(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.text_tokenizer.eos_token_id,
            pad_token_id=self.text_tokenizer.eos_token_id if pad is None else pad,
        )
        return [text.strip() for text in self.text_tokenizer.batch_decode(words, skip_special_tokens=True)]

    def length_request(self, num_tokens: int | str) -> str:
        """Write a length policy as text, with the number of all tokens for "full"."""
        return str(self.config.max_tokens if num_tokens == "full" else num_tokens)

    @torch.no_grad()
    def ask(self, images: Any, question: str, num_tokens: int | str | None = None, *, max_new_tokens: int = 32) -> str:
        """The answer to a question about one or several images.

        Args:
            images: a path, encoded bytes, a PIL image, or a list of them. The question may say with ``<image>`` where each
                stands; else they all stand in front of it.
            question: in words.
            num_tokens: length policy; "full" for all that the tokenizer has, None for the model's own.
            max_new_tokens: most words of the answer.

        Raises:
            UserError: if a picture cannot be read, or the question is empty or has another number of ``<image>``.
        """
        require_text(question, "the question")
        pictures = list(images) if isinstance(images, list | tuple) else [images]
        conversation = self.writer.unanswered(question, len(pictures), "the question")
        tokens = None
        if conversation.images:
            size = self.tokenizer.image_size
            pixels = torch.stack([square_pixels(open_picture(picture), size) for picture in pictures]).to(self.device)
            request = self.length_request(self.config.num_tokens if num_tokens is None else num_tokens)
            query = (without_marks(question) or None) if self.config.query == "question" else None
            tokens = encode_asked(self.tokenizer, pixels, [request], query)[0]
        return self.generate([conversation], tokens, max_new_tokens=max_new_tokens, keys=["the question"])[0]

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, tokenizer: str | None = None, device: str = "auto"
    ) -> "VisionLanguageModel":
        """Load a saved model for answering.

        Args:
            name: a folder or a hub id.
            tokenizer: where its image tokenizer is now; None for where it was.
            device: cpu, cuda, ...; auto takes a GPU where there is one.

        Raises:
            UserError: if a part is missing or damaged, or the image tokenizer is not the one it was trained with.
        """
        target = select_device(device)
        folder = resolve_checkpoint(name)
        config, weights = load_checkpoint(folder, VLMConfig)
        language_model, text_tokenizer = saved_language_model(folder, config)
        image_tokenizer = None if config.blind else saved_image_tokenizer(folder, config, tokenizer, target)
        model = cls(config, language_model, text_tokenizer, image_tokenizer)
        stored = model._stored_weights()
        # Tied to a stored tensor, or a base model's under adapters.
        others = {key: tensor for key, tensor in model.state_dict().items() if key not in stored}
        load_weights(model, others | weights, folder)
        return model.to(target).eval()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None, card: str | None = None) -> None:
        """Write settings, weights (without the image tokenizer's) and the text tokenizer."""
        folder = Path(folder)
        save_checkpoint(folder, self.config, self._stored_weights(), dtype=dtype, card=card)
        with writing(folder):
            self.language_model.config.save_pretrained(folder / LANGUAGE_MODEL_FOLDER)
            self.text_tokenizer.save_pretrained(folder / LANGUAGE_MODEL_FOLDER)

    def _stored_weights(self) -> dict[str, Tensor]:
        """Weights that a folder holds: each tensor once, and of a language model with adapters the adapters alone."""
        kept: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in self.state_dict().items():
            if not self.config.lora.rank or "lora_" in name or not name.startswith("language_model."):
                kept.setdefault(tensor.data_ptr(), (name, tensor))
        return dict(kept.values())
