"""Q-DOVE as a user meets it: without a query a DOVE, with one a DOVE that looks where it is asked to."""

import inspect
import warnings
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dove.config import DoveConfig
from dove.errors import UserError
from dove.models.pretrained import import_words
from dove.query.config import QDoveConfig
from dove.query.tokenizer import QDove, pair_queries
from dove.query.words import QueryTokenizer
from dove.tokenizer import Dove


def test_without_a_query_it_is_the_dove_it_came_from(tiny_dove: Dove, tiny_qdove: QDove, images: torch.Tensor) -> None:
    for request in (3, "auto"):
        expected = tiny_dove.encode(images, request)
        for query in (None, "null", " NULL ", ["null", None, "null"]):
            tokens = tiny_qdove.encode(images, request, query=query)
            assert torch.equal(tokens.values, expected.values)
            assert torch.equal(tokens.lengths, expected.lengths)
            assert torch.equal(tiny_qdove.decode(tokens), tiny_dove.decode(expected))


def test_a_query_changes_its_own_tokens_alone(tiny_qdove: QDove, images: torch.Tensor) -> None:
    null = tiny_qdove.encode(images, 4)
    mixed = tiny_qdove.encode(images, 4, query=["where is the dog?", None, "a cat"])
    torch.testing.assert_close(mixed.values[1], null.values[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed.values[0], null.values[0], atol=1e-3)
    alone = tiny_qdove.encode(images[:1], 4, query="where is the dog?")
    torch.testing.assert_close(alone.values[0], mixed.values[0], atol=1e-4, rtol=1e-4)


def test_several_queries_encode_each_image_once(
    tiny_qdove: QDove, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_qdove
    single = [model.encode(images[row : row + 1], 4, query=text) for row, text in ((0, "a"), (0, "b c"), (1, "d"))]
    seen = []
    encode = model.vqgan.encode
    monkeypatch.setattr(model.vqgan, "encode", lambda batch: seen.append(len(batch)) or encode(batch))
    several = model.encode(images, 4, query=[["a", "b c"], ["d"], [None]])
    assert seen == [3]
    for row, tokens in enumerate(single):
        torch.testing.assert_close(several.values[row], tokens.values[0], atol=1e-4, rtol=1e-4)


def test_prefixes_stay_prefixes(tiny_qdove: QDove, images: torch.Tensor) -> None:
    long, short = (tiny_qdove.encode(images, count, query="the dog") for count in (9, 3))
    torch.testing.assert_close(long.values[:, :3], short.values[:, :3], atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_by_its_own_name(tiny_qdove: QDove, images: torch.Tensor, tmp_path: Path) -> None:
    model = tiny_qdove
    model.save_pretrained(tmp_path)
    loaded = Dove.from_pretrained(tmp_path)
    assert isinstance(loaded, QDove)
    assert loaded.config == model.config
    expected = model.encode(images, 5, query="a dog")
    tokens = loaded.encode(images, 5, query="a dog")
    assert torch.equal(tokens.values, expected.values)
    assert torch.equal(loaded.decode(tokens), model.decode(expected))
    with pytest.raises(UserError, match="describes a model of type Dove, not QDove"):
        QDove.from_pretrained("dove-tiny")


def test_settings_of_a_query_model_hold_those_of_its_dove() -> None:
    assert {field.name for field in fields(DoveConfig)} < {field.name for field in fields(QDoveConfig)}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "empty"),
        (["a", " "], "empty"),
        (["a"], "1 queries for 2 images"),
        ([["a"], []], "image 1 has an empty list"),
        ("pear\udcff", "no text in UTF-8"),
    ],
)
def test_queries_that_do_not_fit(tiny_qdove: QDove, images: torch.Tensor, query: str | list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny_qdove.encode(images[:2], 4, query=query)


def test_queries_nested_too_deep_are_refused() -> None:
    unchecked = inspect.unwrap(pair_queries)  # the tests check annotated types, which users' calls do not
    with pytest.raises(UserError, match="pass a string, None, or a list"):
        unchecked([[["a"]], "b"], 2)


def test_one_for_all_one_each_and_several() -> None:
    assert pair_queries("a", 2) == (["a", "a"], [0, 1])
    assert pair_queries(["a", None], 2) == (["a", None], [0, 1])
    assert pair_queries([["a", "b"], "c"], 2) == (["a", "b", "c"], [0, 0, 1])


def test_words_are_cut_with_a_warning_and_any_text_has_words() -> None:
    tokenizer = QueryTokenizer("tiny", vocab_size=1000, max_length=64)
    tokens = tokenizer(["null", "dog", "где собака? 狗在哪里"])
    assert tokens.mask.sum(1).tolist()[0] == 0
    assert tokens.mask[1:].any(1).all()
    assert (tokens.mask.long().diff(dim=1) >= 0).all()  # right-aligned
    short = QueryTokenizer("tiny", vocab_size=1000, max_length=4)
    with pytest.warns(UserWarning, match="the first 4 are used"):
        cut = short(["one two three four five six seven"])
    assert cut.ids.shape == (1, 4)
    with pytest.raises(UserError, match="has 1000 words"):
        QueryTokenizer("tiny", vocab_size=10, max_length=4)


def test_null_may_be_a_word(tiny_dove: Dove, tiny_qdove: QDove, images: torch.Tensor) -> None:
    model = QDove(replace(tiny_qdove.config, query=replace(tiny_qdove.config.query, null="word"))).eval()
    model.load_state_dict(tiny_qdove.state_dict())
    assert model.query_tokens([None, "null", " NULL "]).mask.any(1).all()
    tokens = model.encode(images, 4)
    assert torch.equal(tokens.values, model.encode(images, 4, query="null").values)
    assert not torch.allclose(tokens.values, tiny_dove.encode(images, 4).values, atol=1e-4)
    torch.testing.assert_close(model.generate(images).values[:, :4], tokens.values[:, :4], atol=1e-4, rtol=1e-4)


def test_words_of_a_language_model_are_kept(tiny_qdove: QDove, tmp_path: Path) -> None:
    words = tiny_qdove.generator.query_embedding.words
    weight = torch.randn_like(words.weight)
    (tmp_path / "config.json").write_text("{}")
    save_file({"gpt_neox.embed_in.weight": weight}, tmp_path / "model.safetensors")
    import_words(words, tmp_path)
    assert torch.equal(words.weight, weight)
    save_file({"other": weight}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="no word embedding"):
        import_words(words, tmp_path)


def test_words_that_no_training_query_had_are_warned_about_once(tiny_qdove: QDove) -> None:
    known = replace(tiny_qdove.config, query=replace(tiny_qdove.config.query, known=("the", "pear")))
    model = QDove(known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.query_tokens(["the pear", "The Pear?", None, "null"])
    with pytest.warns(UserWarning, match=r"not trained on \(zebra\)"):
        model.query_tokens(["the zebra"])
    with pytest.warns(UserWarning, match=r"not trained on \(\?!\)"):
        QDove(known).query_tokens(["?!"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.query_tokens(["a lion"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_qdove.query_tokens(["anything at all"])  # whose words are not listed
