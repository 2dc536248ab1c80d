"""Questions and answers as word ids: the text tokenizer, prompt styles, and where images stand between the words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dove.errors import UserError, one_line

IMAGE = "<image>"  # Marks in a prompt where an image stands, as in LLaVA's conversations
IMAGE_ID = -1  # Stands for an image among word ids; becomes as many positions as the image has tokens

SPECIAL_WORDS = ("<pad>", "<s>", "</s>")
# The wording that Vicuna v1.5 was trained with; another one would cost accuracy.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question, with ``<image>`` where its images stand, and its answer (None where it is to be found)."""

    question: str
    answer: str | None = None
    system: str = ""  # Prompt in front of a conversation that begins with this turn


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Word ids of a conversation, images still as single ``IMAGE_ID``.

    Attributes:
        learned: whether a position is part of an answer.
        segments: 0 for what every position after it may see; questions that don't know each other have numbers from 1.
    """

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    segments: tuple[int, ...]

    @property
    def images(self) -> int:
        """Number of images in it."""
        return self.ids.count(IMAGE_ID)


def train_text_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE (any text can be written in it) as a transformers tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(SPECIAL_WORDS)
    if vocab_size < smallest:
        raise UserError(f"vocab_size={vocab_size} has no room for all bytes; pass at least {smallest}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_WORDS),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    pad, begin, end = SPECIAL_WORDS
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, bos_token=begin, eos_token=end)


def place_images(question: str, count: int, key: str) -> str:
    """The question with one ``<image>`` for each image: its own, or in front where it has none."""
    found = question.count(IMAGE)
    if found == 0:
        return f"{IMAGE}\n" * count + question
    if found != count:
        raise UserError(
            f"{key}: {_number(found, IMAGE)} and {_number(count, 'image')}; write one {IMAGE} for each image"
        )
    return question


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class PromptWriter:
    """Writes conversations the way a language model expects them.

    Args:
        style: ``plain``, ``vicuna`` or ``chat``.

    Raises:
        UserError: for ``chat`` where the text tokenizer has no chat template, or a text tokenizer without an end word.
    """

    def __init__(
        self, text_tokenizer: Any, style: str, *, blind: bool = False, name: str = "the language model"
    ) -> None:
        if style == "chat" and not text_tokenizer.chat_template:
            raise UserError(f"{name} has no chat template; pass --prompt vicuna or --prompt plain")
        if text_tokenizer.eos_token_id is None:
            raise UserError(f"the text tokenizer of {name} has no end-of-sequence word, which answers need")
        self.text_tokenizer, self.style, self.blind, self.name = text_tokenizer, style, blind, name

    def conversation(self, turns: Sequence[Turn], key: str) -> Encoded:
        """A conversation whose turns follow one another; the last answer may be missing."""
        parts: list[tuple[str, bool]] = []
        written = ""
        for count, turn in enumerate(turns, 1):
            prompt = self._prompt(turns[:count])
            if not prompt.startswith(written):
                raise UserError(f"{key}: the chat template of {self.name} rewrites earlier turns; pass --prompt vicuna")
            parts.append((prompt[len(written) :], False))
            written = prompt
            if turn.answer is not None:
                answer = self._answer(turns[:count], prompt)
                parts.append((answer, True))
                written = prompt + answer
        ids, learned = self._encode(parts)
        return Encoded(ids=tuple(ids), learned=tuple(learned), segments=(0,) * len(ids))

    def questions(self, turns: Sequence[Turn], key: str) -> Encoded:
        """Questions about the same images that don't know each other: what stands up to the last image comes once."""
        ids: list[int] = []
        learned: list[bool] = []
        segments: list[int] = []
        for number, turn in enumerate(turns, 1):
            whole = self.conversation([turn], key)
            prefix = len(whole.ids) - whole.ids[::-1].index(IMAGE_ID) if IMAGE_ID in whole.ids else self._opening
            if number == 1:
                ids, learned, segments = list(whole.ids[:prefix]), [False] * prefix, [0] * prefix
            elif list(whole.ids[:prefix]) != ids[: segments.count(0)]:
                raise UserError(f"{key}: its questions differ before their images; give each its own record")
            ids += whole.ids[prefix:]
            learned += whole.learned[prefix:]
            segments += [number] * (len(whole.ids) - prefix)
        return Encoded(ids=tuple(ids), learned=tuple(learned), segments=tuple(segments))

    @property
    def _opening(self) -> int:
        """Words in front of the first text."""
        return int(self.style != "chat" and self.text_tokenizer.bos_token_id is not None)

    def _prompt(self, turns: Sequence[Turn]) -> str:
        """Everything up to where the last answer begins."""
        if self.style == "chat":
            return self._chat(turns, answered=False)
        system = turns[0].system
        if self.style == "vicuna":
            text = f"{system.strip()} " if system else VICUNA_SYSTEM
        else:
            text = f"{system}\n" if system else ""
        for turn in turns:
            question = self._visible(turn.question)
            text += f"USER: {question} ASSISTANT:" if self.style == "vicuna" else f"{question}\n"
            text += f"{turn.answer}{self.text_tokenizer.eos_token}" if turn is not turns[-1] else ""
        return text

    def _answer(self, turns: Sequence[Turn], prompt: str) -> str:
        if self.style != "chat":
            return f"{turns[-1].answer}{self.text_tokenizer.eos_token}"
        return self._chat(turns, answered=True)[len(prompt) :]

    def _chat(self, turns: Sequence[Turn], *, answered: bool) -> str:
        system = turns[0].system
        messages = [{"role": "system", "content": system}] if system else []
        for turn in turns:
            messages.append({"role": "user", "content": self._visible(turn.question)})
            messages.append({"role": "assistant", "content": turn.answer or ""})
        from jinja2 import TemplateError

        messages = messages if answered else messages[:-1]
        try:
            return str(
                self.text_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
            )
        except TemplateError as error:  # some know no system prompt
            raise UserError(
                f"the chat template of {self.name} refuses the conversation ({one_line(error)}); pass --prompt vicuna"
            ) from error

    def _visible(self, question: str) -> str:
        return question.replace(IMAGE, "").strip() if self.blind else question

    def _encode(self, parts: Sequence[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
        """Parts are encoded one by one, so that an answer's words don't hang on what stands before it."""
        ids = [self.text_tokenizer.bos_token_id] * self._opening
        learned = [False] * len(ids)
        for text, is_answer in parts:
            for position, piece in enumerate(text.split(IMAGE)):
                words = self.text_tokenizer(piece, add_special_tokens=False).input_ids if piece else []
                ids += [IMAGE_ID] * (position > 0) + list(words)
                learned += [False] * (position > 0) + [is_answer] * len(words)
        return ids, learned
