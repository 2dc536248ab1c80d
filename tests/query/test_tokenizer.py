"""Q-DOVE as a user meets it: without a query a DOVE, with one a DOVE that looks where it is asked to."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from dove.config import DoveConfig
from dove.errors import UserError
from dove.query.config import QDoveConfig, QueryConfig, RegionConfig
from dove.query.generator import RegionTokenGenerator
from dove.query.tokenizer import QDove, pair_queries
from dove.query.words import QueryTokenizer
from dove.tokenizer import Dove

QUERY = QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=8)
REGION = RegionConfig(kind="rectangle", context_tokens=2, channels=(8, 8, 8))
KINDS = ["plain", "region"]


def make(config: DoveConfig, kind: str) -> tuple[Dove, QDove]:
    if kind == "region":
        config = replace(config, token_basis="bands", token_dim=32)
    torch.manual_seed(0)
    dove = Dove(config).eval()
    return dove, QDove.from_dove(dove, QUERY, REGION if kind == "region" else RegionConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_query_it_is_the_dove_it_came_from(tiny_config: DoveConfig, images: torch.Tensor, kind: str) -> None:
    dove, model = make(tiny_config, kind)
    for request in (3, "auto"):
        expected = dove.encode(images, request)
        for query in (None, "null", " NULL ", ["null", None, "null"]):
            tokens = model.encode(images, request, query=query)
            assert torch.equal(tokens.values, expected.values)
            assert torch.equal(tokens.lengths, expected.lengths)
            assert torch.equal(model.decode(tokens), dove.decode(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_changes_its_own_tokens_alone(tiny_config: DoveConfig, images: torch.Tensor, kind: str) -> None:
    _, model = make(tiny_config, kind)
    null = model.encode(images, 4)
    mixed = model.encode(images, 4, query=["where is the dog?", None, "a cat"])
    torch.testing.assert_close(mixed.values[1], null.values[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed.values[0], null.values[0], atol=1e-3)
    alone = model.encode(images[:1], 4, query="where is the dog?")
    torch.testing.assert_close(alone.values[0], mixed.values[0], atol=1e-4, rtol=1e-4)


def test_several_queries_encode_each_image_once(
    tiny_config: DoveConfig, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = make(tiny_config, "plain")
    single = [model.encode(images[row : row + 1], 4, query=text) for row, text in ((0, "a"), (0, "b c"), (1, "d"))]
    seen = []
    latents = model.latents
    monkeypatch.setattr(model, "latents", lambda batch: seen.append(len(batch)) or latents(batch))
    several = model.encode(images, 4, query=[["a", "b c"], ["d"], [None]])
    assert seen == [3]
    for row, tokens in enumerate(single):
        torch.testing.assert_close(several.values[row], tokens.values[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_prefixes_stay_prefixes(tiny_config: DoveConfig, images: torch.Tensor, kind: str) -> None:
    _, model = make(tiny_config, kind)
    long, short = (model.encode(images, count, query="the dog") for count in (9, 3))
    torch.testing.assert_close(long.values[:, :3], short.values[:, :3], atol=1e-4, rtol=1e-4)


def test_tokens_about_a_region_are_exact_inside_it(tiny_config: DoveConfig, images: torch.Tensor) -> None:
    """With a generator and a decoder that hand the bands on unchanged."""
    _, model = make(tiny_config, "region")
    generator, decoder = model.generator, model.token_decoder
    assert isinstance(generator, RegionTokenGenerator)
    rectangles = torch.tensor([[0, 0, 2, 2], [1, 2, 4, 4], [0, 0, 0, 0]])
    latents = model.latents(images)
    sequence = generator.layout.split(latents, generator.timestamps.bands, rectangles)
    back = decoder.layout.merge(sequence, decoder.bands, rectangles)  # type: ignore[attr-defined]
    inside = generator.layout.cells(rectangles)
    torch.testing.assert_close(back[inside], latents[inside], atol=1e-4, rtol=1e-4)
    output = generator.about(latents, model.query_tokens(["a", "b", "c"]), rectangles)
    assert torch.equal(decoder.mark.read(output.values), rectangles)  # type: ignore[attr-defined]


def test_saved_and_loaded_by_its_own_name(tiny_config: DoveConfig, images: torch.Tensor, tmp_path: Path) -> None:
    _, model = make(tiny_config, "region")
    model.fit_regions(images.repeat(4, 1, 1, 1) + 0.1 * torch.rand(12, 3, 16, 16))
    model.save_pretrained(tmp_path)
    loaded = Dove.from_pretrained(tmp_path)
    assert isinstance(loaded, QDove)
    assert loaded.config == model.config
    expected = model.encode(images, 5, query="a dog")
    tokens = loaded.encode(images, 5, query="a dog")
    assert torch.equal(tokens.values, expected.values)
    assert torch.equal(loaded.decode(tokens), model.decode(expected))
    with pytest.raises(UserError, match="it describes a model of type Dove, not QDove"):
        QDove.from_pretrained("dove-tiny")


def test_settings_of_a_query_model_hold_those_of_its_dove() -> None:
    assert {field.name for field in fields(DoveConfig)} < {field.name for field in fields(QDoveConfig)}
    with pytest.raises(UserError, match="bands"):
        QDoveConfig(region=RegionConfig(kind="rectangle"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "empty"),
        (["a", " "], "empty"),
        (["a"], "1 queries for 2 images"),
        ([["a"], []], "image 1 has an empty list"),
    ],
)
def test_queries_that_do_not_fit(
    tiny_config: DoveConfig, images: torch.Tensor, query: str | list[str], words: str
) -> None:
    _, model = make(tiny_config, "plain")
    with pytest.raises(UserError, match=words):
        model.encode(images[:2], 4, query=query)


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


def test_where_it_looks_is_in_pixels(tiny_config: DoveConfig, images: torch.Tensor) -> None:
    _, model = make(tiny_config, "region")
    boxes = model.find(images, ["a", "b", None])
    assert not boxes[2].any()
    assert ((boxes >= 0) & (boxes[:, :2].repeat(1, 2) + boxes <= 16 * 2)).all()
    with pytest.raises(UserError, match="picks no regions"):
        make(tiny_config, "plain")[1].find(images, "a")


def test_the_shipped_checkpoint_is_a_dove_without_a_query() -> None:
    shipped = Dove.from_pretrained("qdove-tiny")
    assert isinstance(shipped, QDove)
    start = Dove(DoveConfig(**{field.name: getattr(shipped.config, field.name) for field in fields(DoveConfig)})).eval()
    start.load_state_dict({name: shipped.state_dict()[name] for name in start.state_dict()})
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for query in (None, "null"):
        tokens = shipped.encode(images, "auto", query=query)
        assert torch.equal(tokens.values, start.encode(images).values)
    assert torch.equal(shipped.decode(tokens), start.decode(tokens))
    asked = shipped.encode(images, 8, query="a dog")
    assert asked.lengths.tolist() == [8, 8]
