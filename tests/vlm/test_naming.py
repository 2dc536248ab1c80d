"""The tokenizer's start: which choices the questions hold, their loss, and that naming is learned and resumed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from dove.data.sources import FileImages
from dove.errors import UserError
from dove.tokenizer import Dove
from dove.vlm.config import NamingConfig, VLMTrainConfig
from dove.vlm.data import Conversation, Conversations, open_conversations
from dove.vlm.images import Glimpse
from dove.vlm.model import VisionLanguageModel
from dove.vlm.naming import Choices, choice_losses, learn_to_name
from dove.vlm.text import Turn
from dove.vlm.train import run_vlm_training

SHAPES, COLOURS = ("disc", "ring", "star"), ("blue", "gray", "lime", "pink")


def conversations(count: int) -> Conversations:
    """Two wordings ask for the shape, one for the colour, and one question is for yes or no."""
    items = []
    for number in range(count):
        shape, colour = SHAPES[number % 3], COLOURS[number % 4]
        turns = [Turn(question=("shape?", "what shape?")[number % 2], answer=shape)]
        if number % 5:
            turns.append(Turn(question="colour?", answer=colour))
        turns.append(Turn(question="a star?", answer="yes" if shape == "star" else "no"))
        items.append(Conversation(key=str(number), turns=tuple(turns), glimpses=(Glimpse(index=number),)))
    return Conversations(FileImages([]), tuple(items))


def test_wordings_with_the_same_answers_are_one_choice() -> None:
    known = conversations(120)
    choices = Choices(known)
    assert choices.sets == [COLOURS, SHAPES]
    assert [choices.made_in(item) for item in known.items[:6]] == [
        {1: 0}, {0: 1, 1: 1}, {0: 2, 1: 2}, {0: 3, 1: 0}, {0: 0, 1: 1}, {1: 2}
    ]  # fmt: skip
    assert Choices(conversations(12)).sets == []  # asked too rarely


def test_losses_leave_out_what_is_not_known() -> None:
    logits = [torch.randn(4, 3), torch.randn(4, 2)]
    answers = torch.tensor([[0, -1], [2, 1], [-1, 0], [1, -1]])
    total, metrics = choice_losses(logits, answers)
    first = functional.cross_entropy(logits[0][[0, 1, 3]], torch.tensor([0, 2, 1]))
    second = functional.cross_entropy(logits[1][[1, 2]], torch.tensor([1, 0]))
    torch.testing.assert_close(total, first + second)
    right = (logits[1][[1, 2]].argmax(-1) == torch.tensor([1, 0])).float().mean()
    torch.testing.assert_close(metrics["right/1"], right)
    nothing, _ = choice_losses(logits, torch.full((4, 2), -1))
    assert nothing == 0


def test_naming_is_learned_and_its_result_is_found_again(
    training: VLMTrainConfig, tiny_dove: Dove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dove.vlm.naming.LEAST_ANSWERS", 2)
    settings = replace(
        training,
        train_tokenizer=True,
        cache_tokens=False,
        naming=NamingConfig(steps=40, lr=3e-3),
        run=replace(training.run, batch_size=8, checkpoint_every=40),
    )
    before = {name: weight.clone() for name, weight in tiny_dove.state_dict().items()}
    learn_to_name(settings, tiny_dove, open_conversations(training.data))
    lines = (Path(training.output) / "naming" / "metrics.jsonl").read_text().splitlines()
    values = [float(line.split('"naming": ')[1].split(",")[0]) for line in lines if '"naming"' in line]
    assert sum(values[-8:]) < 0.7 * sum(values[:8])
    learned = tiny_dove.state_dict()
    assert any(not torch.equal(learned[name], weight) for name, weight in before.items())
    written = Dove.from_pretrained(Path(training.output) / "naming" / "model", device="cpu").state_dict()
    tiny_dove.load_state_dict(before)
    learn_to_name(settings, tiny_dove, open_conversations(training.data))  # nothing is left to do
    for name, weight in tiny_dove.state_dict().items():
        torch.testing.assert_close(weight, written[name])


def test_data_without_choices_are_refused(training: VLMTrainConfig, tiny_dove: Dove) -> None:
    settings = replace(training, train_tokenizer=True, cache_tokens=False, naming=NamingConfig(steps=1))
    with pytest.raises(UserError, match="different answers"):
        learn_to_name(settings, tiny_dove, conversations(6))
    with pytest.raises(UserError, match="train-tokenizer"):
        replace(training, cache_tokens=False, naming=NamingConfig(steps=1))
    with pytest.raises(UserError, match="tokenizer none"):
        replace(training, tokenizer="none", naming=NamingConfig(steps=1))


def test_a_tokenizer_that_has_named_is_frozen_and_stored(
    training: VLMTrainConfig, tiny_dove: Dove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dove.vlm.naming.LEAST_ANSWERS", 2)
    folder = run_vlm_training(replace(training, naming=NamingConfig(steps=2, lr=1e-2)))
    named = Dove.from_pretrained(Path(training.output) / "naming" / "model", device="cpu").state_dict()
    stored = VisionLanguageModel.from_pretrained(folder, device="cpu").tokenizer
    assert isinstance(stored, Dove)
    start = tiny_dove.state_dict()
    assert any(not torch.equal(weight, start[name]) for name, weight in named.items())
    for name, weight in stored.state_dict().items():
        torch.testing.assert_close(weight, named[name], atol=2e-3, rtol=2e-3)
