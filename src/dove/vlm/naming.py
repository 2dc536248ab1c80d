"""A start for an image tokenizer that learns: its first tokens alone must name what the answers name.

A language model hands its image tokenizer the gradient of a few words per image, through a text that it has to learn to
read first. What can be told apart quickly reshapes the tokens before the rest is found: on easy-VQA colours push out
shapes, which do not come back. Here a small reader of the tokens stands in place of the language model, with one choice
for every set of answers that exclude each other.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dove.data.dataset import ImageDataset
from dove.errors import UserError
from dove.tokenizer import Dove
from dove.training.config import ReconstructionLossConfig
from dove.training.objectives import Objective, StepResult
from dove.training.trainer import Trainer
from dove.vlm.config import VLMTrainConfig
from dove.vlm.data import Conversation, Conversations
from dove.vlm.images import load_pixels, load_view, margin_drift
from dove.vlm.samples import Samples

NO_IMAGES = ReconstructionLossConfig(perceptual=0.0, perceptual_network="none", gan=0.0)
"""Answers need none of the losses on images."""
LEAST_ASKED, LEAST_ANSWERS, MOST_ANSWERS = 16, 3, 1000
"""Questions asked less often, or with fewer or more different answers, are left out: yes or no says little."""
FEWEST_TOKENS, MOST_TOKENS = 4, 16
"""Of a step's images, drawn uniformly."""


class Choices:
    """What there is to tell about images: sets of answers that exclude each other.

    Questions in other words for the same thing have the same answers; together they are one choice.

    Args:
        conversations: whose questions are looked through.
    """

    def __init__(self, conversations: Conversations):
        asked: Counter[str] = Counter()
        answers: dict[str, set[str]] = defaultdict(set)
        for item in conversations.items:
            for turn in item.turns:
                asked[turn.question] += 1
                answers[turn.question].add(turn.answer or "")
        known = {
            question: tuple(sorted(found))
            for question, found in answers.items()
            if asked[question] >= LEAST_ASKED and LEAST_ANSWERS <= len(found) <= MOST_ANSWERS
        }
        self.sets = sorted(set(known.values()))
        """The answers of each choice."""
        numbers = {found: number for number, found in enumerate(self.sets)}
        self._numbers = {question: numbers[found] for question, found in known.items()}

    def made_in(self, item: Conversation) -> dict[int, int]:
        """Places of the answers that a conversation gives, by the number of the choice."""
        return {
            number: self.sets[number].index(turn.answer)
            for turn in item.turns
            if turn.answer is not None and (number := self._numbers.get(turn.question)) is not None
        }


@dataclass(frozen=True, eq=False)
class NamingBatch:
    """Images, and the place of the right answer in each of the Q choices, -1 where nothing was asked.

    Attributes:
        pixels: in [-1, 1].
        answers: the places.
    """

    pixels: Float[Tensor, "B 3 S S"]
    answers: Int[Tensor, "B Q"]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "NamingBatch":
        """The same on another device."""
        return NamingBatch(self.pixels.to(device), self.answers.to(device))


class NamingCollator:
    """Conversations about one image each, and their seeds, to a batch.

    Args:
        config: of the training.
        images: the source.
        image_size: side S in pixels.
        choices: what there is to tell.
    """

    def __init__(self, config: VLMTrainConfig, images: ImageDataset, image_size: int, choices: Choices):
        self.config, self.images, self.image_size, self.choices = config, images, image_size, choices

    def __call__(self, samples: Sequence[tuple[Conversation, int]]) -> NamingBatch:
        answers = torch.full((len(samples), len(self.choices.sets)), -1)
        for row, (item, _) in enumerate(samples):
            for number, place in self.choices.made_in(item).items():
                answers[row, number] = place
        return NamingBatch(torch.stack([self._view(item, seed) for item, seed in samples]), answers)

    def _view(self, item: Conversation, seed: int) -> Float[Tensor, "3 S S"]:
        """The image, or one of its random views."""
        config, view = self.config, int(np.random.default_rng(seed).integers(self.config.views.count))
        return load_view(self.images, item.glimpses[0].index, self.image_size, config.views, config.run.seed, view)


class TokenReader(nn.Module):
    """A small transformer that chooses answers by tokens.

    Args:
        sample: tokens of training images, from which their mean and deviation are taken.
        sizes: how many answers each choice has.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, sample: Float[Tensor, "M k D"], sizes: Sequence[int], layers: int = 3, heads: int = 4):
        super().__init__()
        width = sample.shape[-1]
        self.register_buffer("mean", sample.mean((0, 1)))
        self.register_buffer("deviation", sample.std((0, 1)).clamp(min=1e-6))
        self.enter = nn.Linear(width, width)
        self.places = nn.Parameter(0.02 * torch.randn(MOST_TOKENS, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.choices = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, tokens: Float[Tensor, "B k D"]) -> list[Float[Tensor, "B _"]]:
        """One logit for each answer of each choice."""
        hidden = self.enter((tokens - self.mean) / self.deviation) + self.places[: tokens.shape[1]]
        told = self.norm(self.blocks(hidden).mean(1))
        return [choice(told) for choice in self.choices]


class NamingModel(nn.Module):
    """The tokenizer with its reader, which is dropped afterwards."""

    def __init__(self, tokenizer: Dove, reader: TokenReader):
        super().__init__()
        self.tokenizer, self.reader = tokenizer, reader


class NamingObjective(Objective):
    """Cross entropy of the choices; and the EOS head learns to say what it said of the tokens before.

    Args:
        model: what learns.
        teacher: the tokenizer as it was.
    """

    model: NamingModel
    has_idle_weights = True  # of the tokenizer, those that rebuild images

    def __init__(self, model: NamingModel, teacher: Dove):
        super().__init__(model, NO_IMAGES)
        # In a tuple, so that it is neither trained nor saved.
        self._teacher = (teacher.requires_grad_(False).eval(),)

    def forward(self, batch: NamingBatch, step: int) -> StepResult:  # type: ignore[override]
        tokenizer, teacher = self.model.tokenizer, self._teacher[0].to(batch.pixels.device)
        most = min(MOST_TOKENS, tokenizer.max_tokens)
        count = int(torch.randint(min(FEWEST_TOKENS, most), most + 1, ()))
        latents = tokenizer.latents(batch.pixels)
        hidden = tokenizer.generator.hidden_states(latents, most)[:, latents.shape[1] :]
        tokens = tokenizer.generator.token_projection(hidden[:, :count])
        naming, metrics = choice_losses(self.model.reader(tokens), batch.answers)
        with torch.no_grad():
            known = teacher.generate(teacher.latents(batch.pixels), most).eos
        # The head alone follows the teacher: held to it, the tokens would hardly learn anything new.
        drift = margin_drift(tokenizer.generator.eos_head(hidden.detach()), known)
        metrics |= {"naming": naming.detach(), "drift": drift.detach()}
        return StepResult(naming + drift, tokens.new_zeros(0, 3, 1, 1), metrics)

    def previews(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """None: nothing is rebuilt."""
        return {}


def choice_losses(
    logits: Sequence[Float[Tensor, "B _"]], answers: Int[Tensor, "B Q"]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The sum of the choices' mean cross entropies, and the share of right answers by the number of the choice.

    Images of which a choice is not known are left out of it.
    """
    total, metrics = answers.new_zeros((), dtype=torch.float32), {}
    for number, (scores, places) in enumerate(zip(logits, answers.T, strict=True)):
        known = places >= 0
        count = known.sum().clamp(min=1)
        scores, places = scores.float()[known], places[known]
        total = total + functional.cross_entropy(scores, places, reduction="sum") / count
        metrics[f"right/{number}"] = (scores.argmax(-1) == places).sum() / count
    return total, metrics


def learn_to_name(config: VLMTrainConfig, tokenizer: Dove, conversations: Conversations) -> Path:
    """Train a tokenizer, in place, to tell answers; its checkpoints lie in the folder ``naming`` of the output.

    Args:
        config: of the whole training.
        tokenizer: what learns.
        conversations: the training ones; those about no image or several are left out.

    Returns:
        The folder of the tokenizer as it is then.

    Raises:
        UserError: if no question about one image is asked often.
    """
    about_one = Conversations(conversations.images, tuple(one for one in conversations.items if len(one.glimpses) == 1))
    choices = Choices(about_one)
    part = Conversations(about_one.images, tuple(item for item in about_one.items if choices.made_in(item)))
    if not len(part):
        raise UserError(
            f"naming.steps needs a question that is asked about at least {LEAST_ASKED} images and has at least "
            f"{LEAST_ANSWERS} different answers; these data have none"
        )
    settings = replace(
        config,
        output=str(Path(config.output) / "naming"),
        optim=replace(config.optim, lr=config.naming.lr),
        run=replace(config.run, steps=config.naming.steps, sharding="none"),  # an image tokenizer is small
    )
    pixels = [load_pixels(part.images, item.glimpses[0].index, tokenizer.image_size) for item in part.items[:64]]
    with torch.no_grad():
        sample = tokenizer.encode(torch.stack(pixels), min(MOST_TOKENS, tokenizer.max_tokens)).values
    model = NamingModel(tokenizer, TokenReader(sample[:, :MOST_TOKENS], list(map(len, choices.sets))))
    collator = NamingCollator(settings, part.images, tokenizer.image_size, choices)
    objective = NamingObjective(model, deepcopy(tokenizer))
    trainer = Trainer(
        settings,
        objective,
        part.images,
        torch.zeros(0, 3, 1, 1),
        save_named,
        examples=Samples(part, config.run.seed, collator),
    )
    folder = trainer.train()
    tokenizer.load_state_dict(trainer.average.module.tokenizer.state_dict())  # type: ignore[union-attr]
    return folder


def save_named(model: nn.Module, folder: Path) -> None:
    """What the trainer writes at a checkpoint: the tokenizer alone."""
    assert isinstance(model, NamingModel)
    model.tokenizer.save_pretrained(folder)
