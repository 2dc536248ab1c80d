"""Questions and answers as word ids: the text tokenizer, prompt styles, and where images stand between the words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dove.errors import UserError, as_text, one_line

IMAGE = "<image>"  # Marks in a prompt where an image stands, as in LLaVA's conversations
IMAGE_ID = -1  # Stands for an image among word ids; becomes as many positions as the image has tokens

SPECIAL_WORDS = ("<pad>", "<s>", "</s>")
PLAIN = r"{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
# The wording that Vicuna v1.5 was trained with; another one would cost accuracy.
VICUNA = (
    "{% if messages[0].role != 'system' %}A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. {% endif %}"
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content | trim }} {% elif m.role == 'user' %}"
    "USER: {{ m.content }} ASSISTANT:{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"plain": PLAIN, "vicuna": VICUNA, "chat": None}
"""Chat templates by prompt style; None is the text tokenizer's own."""


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
    from tokenizers import ByteLevelBPETokenizer, Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    smallest = len(pre_tokenizers.ByteLevel.alphabet()) + len(SPECIAL_WORDS)
    if vocab_size < smallest:
        raise UserError(f"vocab_size={vocab_size} has no room for all bytes; pass at least {smallest}")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocab_size, min_frequency=0, show_progress=False, special_tokens=list(SPECIAL_WORDS)
    )
    pad, begin, end = SPECIAL_WORDS
    written = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=written, pad_token=pad, bos_token=begin, eos_token=end)


def place_images(questions: list[str], count: int, key: str) -> list[str]:
    """A conversation's questions with one ``<image>`` for each image: their own, or in front where they have none."""
    found = sum(question.count(IMAGE) for question in questions)
    if found == 0:
        return [f"{IMAGE}\n" * count + questions[0], *questions[1:]]
    if found != count:
        raise UserError(
            f"{key}: {_number(found, IMAGE)} and {_number(count, 'image')}; write one {IMAGE} for each image"
        )
    return questions


def without_marks(question: str) -> str:
    """The words of a question alone."""
    return question.replace(IMAGE, "").strip()


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class PromptWriter:
    """Writes conversations the way a language model expects them, in the style ``plain``, ``vicuna`` or ``chat``."""

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
        for text in (text for turn in turns for text in (turn.question, turn.answer, turn.system) if text):
            as_text(text, key)
        ids = [self.text_tokenizer.bos_token_id] * self._opening
        learned = [False] * len(ids)
        written = ""
        for count, turn in enumerate(turns, 1):
            for answered in (False, True) if turn.answer is not None else (False,):
                text = self._write(turns[:count], answered=answered)
                if not text.startswith(written):
                    raise UserError(
                        f"{key}: the chat template of {self.name} rewrites earlier turns; pass --prompt vicuna"
                    )
                # Encoded part by part, so that an answer's words don't hang on what stands before it.
                part = self._encode(text[len(written) :])
                ids += part
                learned += [answered] * len(part)
                written = text
        return Encoded(ids=tuple(ids), learned=tuple(learned), segments=(0,) * len(ids))

    def unanswered(self, question: str, images: int, key: str) -> Encoded:
        """A question about so many images that is to be answered."""
        return self.conversation([Turn(question=place_images([question], images, key)[0])], key)

    def questions(self, turns: Sequence[Turn], key: str) -> Encoded:
        """Questions about the same images that don't know each other: what stands up to the last image comes once."""
        alone = [self.conversation([turn], key) for turn in turns]
        first = alone[0].ids
        shared = len(first) - first[::-1].index(IMAGE_ID) if IMAGE_ID in first else self._opening
        if any(one.ids[:shared] != first[:shared] for one in alone):
            raise UserError(f"{key}: its questions differ before their images; give each its own record")
        return Encoded(
            ids=sum((one.ids[shared:] for one in alone), first[:shared]),
            learned=sum((one.learned[shared:] for one in alone), (False,) * shared),
            segments=sum(((number,) * len(one.ids[shared:]) for number, one in enumerate(alone, 1)), (0,) * shared),
        )

    @property
    def _opening(self) -> int:
        """Words in front of the first text."""
        return int(self.style != "chat" and self.text_tokenizer.bos_token_id is not None)

    def _write(self, turns: Sequence[Turn], *, answered: bool) -> str:
        """Everything up to where the last answer begins, or ends."""
        from jinja2 import TemplateError

        messages = [{"role": "system", "content": turns[0].system}] if turns[0].system else []
        for turn in turns:
            question = without_marks(turn.question) if self.blind else turn.question
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.answer or ""})
        try:
            text = self.text_tokenizer.apply_chat_template(
                messages if answered else messages[:-1],
                chat_template=TEMPLATES[self.style],
                tokenize=False,
                add_generation_prompt=not answered,
            )
        except TemplateError as error:  # some know no system prompt
            raise UserError(
                f"the chat template of {self.name} refuses the conversation ({one_line(error)}); pass --prompt vicuna"
            ) from error
        return str(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for position, piece in enumerate(text.split(IMAGE)):
            ids += [IMAGE_ID] * (position > 0)
            ids += self.text_tokenizer(piece, add_special_tokens=False).input_ids if piece else []
        return ids
