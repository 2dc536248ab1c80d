"""Ragged from end to end: what an image's answer depends on, and what not."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Qwen2Config

from dove.errors import UserError
from dove.tokens import Tokens
from dove.vlm.batch import lay_out
from dove.vlm.model import VisionLanguageModel
from dove.vlm.text import Encoded, PromptWriter, Turn, train_text_tokenizer

LENGTHS = (1, 5, 11, 16)


def with_language_model(vlm: VisionLanguageModel, kind: str) -> VisionLanguageModel:
    """The same around another architecture."""
    sizes = {"vocab_size": 270, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    configs = {
        "llama": LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2),
        "gpt-neox": GPTNeoXConfig(**sizes, num_attention_heads=4),
        "qwen2-eager": Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    }
    torch.manual_seed(1)
    language_model = AutoModelForCausalLM.from_config(configs[kind])
    if kind.endswith("eager"):
        language_model.set_attn_implementation("eager")
    for parameter in language_model.parameters():
        parameter.data.mul_(4 if parameter.ndim > 1 else 1)
    return VisionLanguageModel(vlm.config, language_model, vlm.text_tokenizer, vlm.tokenizer).eval()


def ask(vlm: VisionLanguageModel, text: str = "<image>\nwhat color is it?") -> Encoded:
    return vlm.writer.conversation([Turn(question=text)], "test")


@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "qwen2-eager"])
def test_neighbours_of_other_lengths_change_nothing(vlm: VisionLanguageModel, kind: str) -> None:
    vlm = with_language_model(vlm, kind)
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randn(length, 24, generator=generator) for length in LENGTHS]
    question = ask(vlm)
    tokens = Tokens.from_ragged(sequences, 16)
    together = vlm(lay_out([question] * 4, list(LENGTHS)), tokens)
    ends = []
    for number, length in enumerate(LENGTHS):
        alone = vlm(lay_out([question], [length]), tokens[number])[0]
        torch.testing.assert_close(together[number, : len(alone)], alone, atol=1e-4, rtol=1e-4)
        assert len(alone) == len(question.ids) - 1 + length
        ends.append(alone[-1])
    answers = vlm.generate([question] * 4, tokens, max_new_tokens=6)
    assert answers == [vlm.generate([question], tokens[number], max_new_tokens=6)[0] for number in range(4)]
    assert all(not torch.allclose(end, ends[0], atol=1e-2) for end in ends[1:])


def test_generation_with_a_cache_is_the_most_likely_word_each_time(vlm: VisionLanguageModel) -> None:
    tokens = Tokens.from_ragged([torch.randn(5, 24, generator=torch.Generator().manual_seed(3))], 16)
    question = ask(vlm)
    ids = list(question.ids)
    for _ in range(5):
        grown = Encoded(ids=tuple(ids), learned=(False,) * len(ids), segments=(0,) * len(ids))
        ids.append(int(vlm(lay_out([grown], [5]), tokens)[0, -1].argmax()))
    said = [word for word in ids[len(question.ids) :] if word != vlm.text_tokenizer.eos_token_id]
    expected = vlm.text_tokenizer.decode(said, skip_special_tokens=True).strip()
    assert vlm.generate([question], tokens, max_new_tokens=5) == [expected]


def test_questions_about_one_image_are_as_if_asked_alone(vlm: VisionLanguageModel) -> None:
    turns = [Turn(question=f"<image>\n{text}", answer=answer) for text, answer in (("is it?", "red"), ("no", "blue"))]
    shared = vlm.writer.questions(turns, "test")
    tokens = Tokens.from_ragged([torch.randn(7, 24, generator=torch.Generator().manual_seed(2))], 16)
    layout = lay_out([shared], [7])
    together = vlm(layout, tokens)[0]
    for number, turn in enumerate(turns, 1):
        alone = vlm(lay_out([vlm.writer.conversation([turn], "test")], [7]), tokens)[0]
        own = together[layout.segments[0] == number]
        torch.testing.assert_close(own, alone[-len(own) :], atol=1e-4, rtol=1e-4)


def test_every_image_goes_to_its_own_place(vlm: VisionLanguageModel) -> None:
    question = ask(vlm, "first <image> then <image>")
    one, two = torch.randn(2, 24), torch.randn(3, 24)
    layout = lay_out([question, ask(vlm)], [2, 3, 1])
    embedded = vlm.embed(layout, Tokens.from_ragged([one, two, one[:1]], 16))
    places = layout.image_positions[0].nonzero().flatten().tolist()
    torch.testing.assert_close(embedded[0, places[:2]], vlm.connector(one, torch.arange(2)))
    torch.testing.assert_close(embedded[0, places[2:]], vlm.connector(two, torch.arange(3)))
    assert places[2] > places[1] + 1
    words = [place for place in range(len(question.ids) + 3) if place not in places]
    expected = vlm.language_model.get_input_embeddings()(layout.ids[0, words])
    torch.testing.assert_close(embedded[0, words], expected)


def test_a_connector_sees_every_place_standardised(vlm: VisionLanguageModel) -> None:
    generator = torch.Generator().manual_seed(5)
    places = torch.arange(16)
    scale = torch.rand(16, 24, generator=generator) * 0.3 ** places[:, None]  # in decreasing order of importance
    tokens = (torch.randn(50, 16, 24, generator=generator) + 4) * scale
    tokens[:, :, 3] = 2.0  # says nothing, and must not become large
    vlm.connector.standardise(tokens)
    seen = [
        (tokens[0] - vlm.connector.mean) / vlm.connector.deviation,
        tokens[:, 5].std(0) / vlm.connector.deviation[5],
    ]
    assert seen[0].abs().max() < 6
    assert seen[1].median() == pytest.approx(1)
    assert seen[0][:, 3].abs().max() < 1e-3
    same = vlm.connector.mean[:2].clone()
    torch.testing.assert_close(*vlm.connector(same, torch.arange(2)))  # only what differs between images is left
    vlm.connector.places.data[1] += 1
    assert not torch.allclose(*vlm.connector(same, torch.arange(2)))
    vlm.connector.standardise(tokens[:1])
    assert torch.isfinite(vlm.connector(tokens[0], places)).all()


def test_only_answers_are_learned_and_each_position_predicts_the_next_word(vlm: VisionLanguageModel) -> None:
    turns = [Turn(question="<image>\nhow?", answer="red"), Turn(question="and?", answer="blue")]
    layout = lay_out([vlm.writer.conversation(turns, "test")], [3])
    learned = layout.labels[0][layout.labels[0] != -100].tolist()
    assert vlm.text_tokenizer.decode(learned) == "red</s>blue</s>"
    places = (layout.labels[0] != -100).nonzero().flatten()
    assert torch.equal(layout.ids[0, places + 1], layout.labels[0, places])


def test_asking_about_pictures(vlm: VisionLanguageModel) -> None:
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    assert isinstance(vlm.ask(picture, "what color is it?", 4), str)
    assert isinstance(vlm.ask([picture, picture], "<image> or <image>?", "auto"), str)
    with pytest.raises(UserError, match="1 <image> and 2 images"):
        vlm.ask([picture, picture], "<image>?")
    with pytest.raises(UserError, match="num_tokens=17"):
        vlm.ask(picture, "what?", 17)
    with pytest.raises(UserError, match="the question: .* positions"):
        vlm.ask(picture, "why " * 300)
    with pytest.raises(UserError, match="num_tokens=0"):
        vlm.ask(picture, "what?", 0)
    assert vlm.ask(picture, "what?", "full") == vlm.ask(picture, "what?", 16)
    for question, words in ((" ", "is empty"), ("\ud83d", "UTF-8")):
        with pytest.raises(UserError, match=f"the question.*{words}"):
            vlm.ask(picture, question)


def test_an_answer_may_be_blank_but_not_half_a_letter(vlm: VisionLanguageModel) -> None:
    assert vlm.writer.conversation([Turn(question="what?", answer=" ")], "here").ids
    with pytest.raises(UserError, match="here: .*no text in UTF-8"):
        vlm.writer.conversation([Turn(question="what?", answer="\ud83d")], "here")


def test_a_saved_model_answers_the_same(vlm: VisionLanguageModel, tokenizer_folder: str, tmp_path: Path) -> None:
    from dove.checkpoint import checkpoint_sha256

    sha256 = checkpoint_sha256(Path(tokenizer_folder))
    vlm.config = replace(vlm.config, tokenizer=tokenizer_folder, tokenizer_sha256=sha256)
    vlm.save_pretrained(tmp_path / "vlm")
    loaded = VisionLanguageModel.from_pretrained(tmp_path / "vlm", device="cpu")
    tokens = Tokens.from_ragged([torch.randn(5, 24)], 16)
    layout = lay_out([ask(vlm)], [5])
    torch.testing.assert_close(loaded(layout, tokens), vlm(layout, tokens))
    vlm.config = replace(vlm.config, tokenizer_sha256="0" * 64)
    vlm.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="was trained for the image tokenizer"):
        VisionLanguageModel.from_pretrained(tmp_path / "other", device="cpu")
    with pytest.raises(UserError, match="describes a model of type Dove, not VLM"):
        VisionLanguageModel.from_pretrained(tokenizer_folder, device="cpu")
    shutil.rmtree(tmp_path / "vlm" / "language_model")
    with pytest.raises(UserError, match="no folder language_model"):
        VisionLanguageModel.from_pretrained(tmp_path / "vlm", device="cpu")


def test_tied_weights_are_stored_once_and_come_back(
    vlm: VisionLanguageModel, tokenizer_folder: str, tmp_path: Path
) -> None:
    tied = with_language_model(vlm, "qwen2-eager")
    tied.config = replace(vlm.config, tokenizer=tokenizer_folder)
    tied.save_pretrained(tmp_path / "tied")
    loaded = VisionLanguageModel.from_pretrained(tmp_path / "tied", device="cpu")
    assert loaded.language_model.lm_head.weight is loaded.language_model.get_input_embeddings().weight
    layout = lay_out([ask(vlm)], [1])
    tokens = Tokens.from_ragged([torch.ones(1, 24)], 16)
    torch.testing.assert_close(loaded(layout, tokens), tied(layout, tokens), atol=1e-5, rtol=1e-4)


def test_chat_templates(vlm: VisionLanguageModel) -> None:
    words = train_text_tokenizer(["hello"], 270)
    with pytest.raises(UserError, match="has no chat template; pass --prompt vicuna"):
        PromptWriter(words, "chat", name="some-lm")
    words.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    writer = PromptWriter(words, "chat")
    turns = [Turn(question="<image>a", answer="b"), Turn(question="c", answer="d")]
    encoded = writer.conversation(turns, "test")
    texts = [word for word in encoded.ids if word >= 0]
    assert words.decode(texts) == "<user>a</s><assistant>b</s><user>c</s><assistant>d</s>"
    assert words.decode([word for word, own in zip(encoded.ids, encoded.learned, strict=True) if own]) == "b</s>d</s>"
    words.chat_template = "{% for m in messages[-2:] %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="sample 7: the chat template of .* rewrites earlier turns"):
        PromptWriter(words, "chat").conversation([*turns, *turns], "sample 7")


def test_a_system_prompt_stands_in_front() -> None:
    words = train_text_tokenizer(["why?"], 300)
    turns = [Turn(question="why?", answer="so", system="Be brief."), Turn(question="sure?", answer="yes")]

    def written(style: str) -> str:
        return words.decode(PromptWriter(words, style).conversation(turns, "sample 7").ids)

    assert written("plain").startswith("<s>Be brief.\nwhy?\n")
    assert written("vicuna").startswith("<s>Be brief. USER: why?")
    words.chat_template = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
    assert written("chat").startswith("[system]Be brief.[user]why?")
    words.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match=r"refuses the conversation \(no system role\); pass --prompt vicuna"):
        written("chat")


def test_any_text_survives_the_byte_level_words() -> None:
    words = train_text_tokenizer(["what color is the shape?"], 300)
    for text in ("what color?", "Größe 北京 🕊", "a\n\tb  c"):
        assert words.decode(words(text, add_special_tokens=False).input_ids) == text
    with pytest.raises(UserError, match="no room for all bytes"):
        train_text_tokenizer(["a"], 200)
