"""Readers, and what they say about samples that don't do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dove.data.sources import FileImages
from dove.errors import UserError
from dove.vlm.batch import NOT_LEARNED, lay_out
from dove.vlm.config import ViewsConfig, VLMTrainConfig
from dove.vlm.data import Conversation, Conversations, open_conversations, some_turns
from dove.vlm.images import Glimpse, pad_to_square, random_view
from dove.vlm.model import VisionLanguageModel
from dove.vlm.questions import open_questions
from dove.vlm.samples import Samples
from dove.vlm.text import IMAGE_ID, Encoded, Turn


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], str]:
    Image.new("RGB", (16, 12), "red").save(tmp_path / "a.png")
    Image.new("RGB", (16, 12), "blue").save(tmp_path / "b.png")

    def writer(records: list[Any]) -> str:
        (tmp_path / "data.json").write_text(json.dumps(records))
        return str(tmp_path / "data.json")

    return writer


def test_the_layout_of_llava(write: Callable[[list[Any]], str]) -> None:
    records = [
        {"id": "7", "image": "a.png", "conversations": said("<image>\nwhat?", "red", "sure?", "yes")},
        {"id": "8", "image": ["a.png", "b.png"], "conversations": said("<image> or <image>?", "both")},
        {"id": "9", "conversations": said("2 + 2?", "4")},
    ]
    found = open_conversations(write(records))
    assert [len(item.glimpses) for item in found.items] == [1, 2, 0]
    assert [glimpse.index for item in found.items for glimpse in item.glimpses] == [0, 0, 1]
    assert found.items[0].turns[1].question == "sure?"
    assert len(found.images) == 2
    training, holdout = found.split(1)
    assert (len(training), len(holdout)) == (2, 1)
    with pytest.raises(UserError, match="holdout=3 leaves nothing of 3"):
        found.split(3)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": ["a.png", "b.png"], "conversations": said("<image>?", "red")}, "1 <image> and 2 images"),
        ({"conversations": said("<image>?", "red")}, "1 <image> and 0 images"),
        ({"image": "a.png", "conversations": said("<image>?", "<image>")}, "an answer holds <image>"),
        ({"image": "a.png", "conversations": said("<image>?", "red")[::-1]}, "gpt speaks where human should"),
        ({"image": "a.png", "conversations": [{"from": "system", "value": "x"}]}, "each followed by its answer"),
        ({"image": "a.png", "conversations": said("<image>?")}, "each followed by its answer"),
        ({"image": "a.png", "conversations": [*said("<image>?"), {"from": "dog", "value": "x"}]}, "entry 1"),
        ({"image": 3, "conversations": said("<image>?", "red")}, "must be a path"),
        ({"image": "a.png"}, "conversations must be"),
        ("text", "it must be an object"),
    ],
)
def test_the_validator_names_the_sample(record: Any, message: str, write: Callable[[list[Any]], str]) -> None:
    fine = {"id": "1", "image": "a.png", "conversations": said("<image>?", "red")}
    if isinstance(record, dict):
        record = {"id": "odd", **record}
        message = rf"record 1 \(id odd\): .*{message}"
    with pytest.raises(UserError, match=message):
        open_conversations(write([fine, record]))


def test_the_forms_that_conversations_come_in(write: Callable[[list[Any]], str], tmp_path: Path) -> None:
    turns = said("<image>\nwhat?", "red", "sure?", "yes")
    messages = [
        {"role": role, "content": turn["value"]} for role, turn in zip(["user", "assistant"] * 2, turns, strict=True)
    ]
    expected = open_conversations(write([{"image": "a.png", "conversations": turns}])).items[0].turns
    unmarked = said("what?", "red", "sure?", "yes")
    system = {"from": "system", "value": "Be brief."}
    forms = [
        {"image": "a.png", "conversations": unmarked},
        {"image": "a.png", "conversations": messages},
        {"images": ["a.png"], "messages": messages},
        {"image": "a.png", "conversations": [system, *turns]},
    ]
    (tmp_path / "lines.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, forms)), encoding="utf-8")
    for source in (write(forms), str(tmp_path / "lines.jsonl")):
        found = open_conversations(source)
        assert [item.turns for item in found.items[:3]] == [expected] * 3
        assert found.items[3].turns == (replace(expected[0], system="Be brief."), *expected[1:])
        assert "Be brief." in found.texts
    two = open_conversations(write([{"image": ["a.png", "b.png"], "conversations": said("which?", "both")}]))
    assert two.items[0].turns[0].question == "<image>\n<image>\nwhich?"


def test_missing_images_are_refused_in_sum_or_skipped(write: Callable[[list[Any]], str]) -> None:
    def record(*paths: str) -> dict[str, Any]:
        return {"image": list(paths), "conversations": said("what?", "red")}

    source = write(
        [record("a.png"), *(record(f"gone{number}.png") for number in range(5)), record("b.png", "gone0.png")]
    )
    with pytest.raises(
        UserError, match=r"5 images are not in .*: gone0.png, gone1.png, gone2.png, \.\.\..*--on-missing skip"
    ):
        open_conversations(source)
    found = open_conversations(source, on_missing="skip")
    assert [len(item.glimpses) for item in found.items] == [1]
    assert found.left_out.startswith("6 of 7 conversations are left out: 5 images are not in")
    with pytest.raises(UserError, match="which leaves no conversation"):
        open_conversations(write([record("gone.png")]), on_missing="skip")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conversations are given"):
        open_conversations("")
    with pytest.raises(UserError, match="cannot read"):
        open_conversations(str(tmp_path / "no.json"))
    (tmp_path / "broken.json").write_text("[")
    with pytest.raises(UserError, match="is not JSON"):
        open_conversations(str(tmp_path / "broken.json"))


def test_parquet_with_questions(questions_file: str) -> None:
    found = open_conversations(questions_file)
    assert len(found) == 24
    assert not found.items[0].follows
    assert found.items[3].turns[0].answer == "blue"
    alone = found.by_question()
    assert len(alone) == 48
    assert alone.items[1].glimpses[0].query == "is it red?"
    questions = open_questions(questions_file)
    assert len(questions) == 48
    assert len(questions.draw(5, 0)) == 5
    assert questions.draw(5, 0).sha256 == questions.draw(5, 0).sha256 != questions.draw(5, 1).sha256


def test_benchmark_records(write: Callable[[list[Any]], str]) -> None:
    records = [
        {"image": "a.png", "question": "what?", "answers": ["red", "crimson"]},
        {"image": "a.png", "question": "what?", "answers": [{"answer": "red"}]},
        {"image": "b.png", "question": "which?", "choices": ["red", "blue"], "answer": 1},
        {"image": "b.png", "question": "which?", "choices": ["red", "blue"], "answer": "red"},
    ]
    items = open_questions(write(records)).items
    assert items[0].answers == ("red", "crimson")
    assert items[1].answers == ("red",)
    assert items[2].text == "which?\nA. red\nB. blue"
    assert [item.answers[0] for item in items[2:]] == ["B", "A"]
    records[3]["answer"] = "green"
    with pytest.raises(UserError, match="record 3: the answer 'green' is none of its 2 choices"):
        open_questions(write(records))
    with pytest.raises(UserError, match="record 0: needs a question and an answer"):
        open_questions(write([{"image": "a.png", "question": "what?"}]))


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from([IMAGE_ID, 3, 4, 5]), min_size=1, max_size=6), min_size=1, max_size=4), st.data()
)
def test_every_image_takes_exactly_its_tokens(rows: list[list[int]], data: st.DataObject) -> None:
    count = sum(row.count(IMAGE_ID) for row in rows)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    encoded = [Encoded(ids=tuple(row), learned=(False,) * len(row), segments=(0,) * len(row)) for row in rows]
    layout = lay_out(encoded, lengths)
    assert int(layout.image_positions.sum()) == sum(lengths)
    texts = [[word for word in row if word != IMAGE_ID] for row in rows]
    found = [
        [int(word) for word, place in zip(ids, places, strict=True) if place >= 0 and word != IMAGE_ID]
        for ids, places in zip(layout.ids, layout.segments, strict=True)
    ]
    assert found == texts
    assert (layout.labels == NOT_LEARNED).all()
    with pytest.raises(UserError, match="images and there are"):
        lay_out(encoded, [*lengths, 1])


def test_a_text_longer_than_the_context_names_the_sample() -> None:
    encoded = Encoded(ids=(1, IMAGE_ID, 2), learned=(False,) * 3, segments=(0,) * 3)
    assert lay_out([encoded], [4], context=6).ids.shape == (1, 6)
    with pytest.raises(UserError, match="sample 5: 7 positions with its images, and the language model has 6"):
        lay_out([encoded], [5], keys=["sample 5"], context=6)


def test_padding_crops_nothing() -> None:
    picture = Image.new("RGB", (20, 10), "red")
    square = pad_to_square(picture)
    assert square.size == (20, 20)
    assert square.getpixel((10, 10)) == (255, 0, 0)
    assert square.getpixel((10, 2)) != (255, 0, 0)


def test_views_keep_the_whole_picture() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[5:8, 6:12] = 200
    pixels[6, 6] = 100
    config = ViewsConfig(count=2, mirror=True)
    rng = np.random.default_rng(0)
    views = [random_view(Image.fromarray(pixels), config, rng) for _ in range(40)]
    assert all((np.asarray(view) == 200).sum() == 51 for view in views)
    assert len({np.asarray(view).tobytes() for view in views}) > 30
    assert max(view.width for view in views) == 24
    columns = [np.where(np.asarray(view) == value)[1] for view in views for value in (100, 200)]
    left = [mark.mean() < shape.mean() for mark, shape in zip(columns[::2], columns[1::2], strict=True)]
    assert 10 < sum(left) < 30
    rows = [np.asarray(view).max((1, 2)) for view in views]
    assert all((row > 0).sum() == 3 for row in rows)  # never turned


def test_balance_evens_out_answers() -> None:
    turns = tuple(Turn(question=f"<image>\n{number}?", answer="yes" if number else "a hat") for number in range(8))
    item = Conversation(key="k", turns=turns, glimpses=(Glimpse(index=0),), follows=False)
    conversations = Conversations(FileImages([]), (item,))

    def share(balance: float) -> float:
        weights = conversations.answer_weights(balance)
        drawn = [some_turns(item, 1, weights, seed)[0].answer for seed in range(400)]
        return drawn.count("a hat") / len(drawn)

    assert abs(share(0.0) - 1 / 8) < 0.05
    assert abs(share(1.0) - 1 / 2) < 0.08
    assert some_turns(item, None, {}, 0) == turns
    assert some_turns(replace(item, follows=True), 1, {}, 0) == turns
    with pytest.raises(UserError, match="questions-per-image"):
        VLMTrainConfig(preset="vlm-tiny", answer_balance=1.0)
    with pytest.raises(UserError, match="at least 0"):
        VLMTrainConfig(preset="vlm-tiny", answer_balance=-1.0, questions_per_image=2)


def test_a_batch_has_one_length_policy(training: VLMTrainConfig, vlm: VisionLanguageModel) -> None:
    config = replace(training, num_tokens=("auto", "16"), views=ViewsConfig())
    conversations = open_conversations(config.data)
    lengths = {"auto": 2, "16": 16}
    cache = {
        (glimpse, name): torch.zeros(count, 24) for glimpse in conversations.glimpses for name, count in lengths.items()
    }
    samples = Samples(config, vlm.writer, conversations, vlm.config, cache)
    drawn = set()
    for seed in range(12):
        batch = samples.collate([(item, 100 * seed + number) for number, item in enumerate(conversations.items[:6])])
        tokens = batch.tokens
        assert tokens is not None
        assert len(batch) == 6
        assert len(tokens.lengths.unique()) == 1
        drawn.add(int(tokens.lengths[0]))
    assert drawn == {2, 16}
