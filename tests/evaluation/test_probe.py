"""Pooling, the feature cache, and the classifiers on top."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dove.baselines.adapter import FixedLength
from dove.errors import UserError
from dove.evaluation import feature_cache
from dove.evaluation.common import Images, Subject
from dove.evaluation.feature_cache import FeatureCache, FeatureSource, extract, pool
from dove.evaluation.probe import Problem, best_layers, feature_sources, fit_linear, fit_mlp, score, validation_images
from dove.tokenizer import Dove


@pytest.fixture
def subject(tiny_dove: Dove) -> Subject:
    return Subject("tiny", tiny_dove, torch.device("cpu"), "0" * 64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Seven pictures of 16 px."""
    (tmp_path / "photos").mkdir()
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return Images(str(tmp_path / "photos"))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each extracted batch."""
    counts: list[int] = []

    def counting(subject: Subject, sources: object, pixels: torch.Tensor) -> object:
        counts.append(len(pixels))
        return extract(subject, sources, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_cache, "extract", counting)
    return counts


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_pooling_sees_kept_vectors_alone(lengths: list[int], seed: int) -> None:
    values = torch.randn(len(lengths), 5, 3, generator=torch.Generator().manual_seed(seed)) - 2
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    pooled = pool(values.masked_fill(~mask[..., None], torch.nan), mask)
    for row, (kept, length) in zip(pooled, zip(values, lengths, strict=True), strict=True):
        expected = np.concatenate([kept[:length].numpy().mean(0), kept[:length].numpy().max(0)])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_tokens_and_layers_are_the_model_s(subject: Subject, tiny_dove: Dove) -> None:
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    sources = [FeatureSource("tokens", "3"), FeatureSource(2), FeatureSource("latents")]
    found = extract(subject, sources, pixels)
    tokens = tiny_dove.encode(pixels, 3).values[:, :3]
    torch.testing.assert_close(found[sources[0]][0], torch.cat([tokens.mean(1), tokens.amax(1)], 1))
    assert found[sources[0]][1].tolist() == [3, 3, 3]
    layer = tiny_dove.hidden_layers(pixels)[1]
    torch.testing.assert_close(found[sources[1]][0], torch.cat([layer.mean(1), layer.amax(1)], 1))
    assert found[sources[2]][0].shape == (3, 2 * tiny_dove.vqgan.encode(pixels).shape[-1])


def test_features_that_are_not_finite_are_named(subject: Subject, tiny_dove: Dove, images: Images) -> None:
    with torch.no_grad():
        tiny_dove.generator.token_projection.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="tiny, tokens@4: some features are not finite"):
        FeatureCache(subject, images, 4).collect([FeatureSource("tokens", "4")], "train")


def test_cached_features_are_not_extracted_again(
    subject: Subject, images: Images, extracted: list[int], cache: Path
) -> None:
    sources = [FeatureSource("tokens", "4"), FeatureSource("tokens", "auto")]
    first = FeatureCache(subject, images, 2).collect(sources, "train")
    assert extracted == [2, 2, 2, 1]
    again = FeatureCache(subject, images, 2).collect(sources, "train")
    assert len(extracted) == 4
    for source in sources:
        np.testing.assert_array_equal(again[source].values, first[source].values)
        np.testing.assert_array_equal(again[source].lengths, first[source].lengths)
        assert again[source].keys == first[source].keys == [f"{number}.png" for number in range(7)]
    assert len(list(cache.rglob("*.npz"))) == 2


def test_features_of_a_shared_budget_belong_to_their_batch_size(subject: Subject, images: Images) -> None:
    small, large = FeatureCache(subject, images, 2), FeatureCache(subject, images, 4)
    budget, fixed = FeatureSource("tokens", "budget 4"), FeatureSource("tokens", "4")
    assert small._file(budget) != large._file(budget)
    assert small._file(fixed) == large._file(fixed)


def test_without_room_for_the_cache_features_are_the_same(
    subject: Subject, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FeatureSource(1)
    first = FeatureCache(subject, images, 3).collect([source], "train")[source]
    monkeypatch.setenv("DOVE_CACHE", str(Path("/dev/null/nowhere")))
    with pytest.warns(UserWarning, match="not cached"):
        fresh = FeatureCache(subject, images, 3).collect([source], "train")[source]
    np.testing.assert_array_equal(first.values, fresh.values)


def test_a_damaged_file_is_extracted_again(subject: Subject, images: Images, extracted: list[int], cache: Path) -> None:
    sources = [FeatureSource(1), FeatureSource(2)]
    first = FeatureCache(subject, images, 3).collect(sources, "train")
    damaged = next(cache.rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = FeatureCache(subject, images, 3).collect(sources, "train")
    assert extracted == [3, 3, 1] * 2
    for source in sources:
        np.testing.assert_array_equal(again[source].values, first[source].values)


@pytest.mark.parametrize("change", ["checkpoint", "images", "source"])
def test_other_checkpoints_images_and_sources_have_their_own_files(
    change: str, subject: Subject, images: Images, extracted: list[int]
) -> None:
    FeatureCache(subject, images, 3).collect([FeatureSource(1)], "train")
    before = len(extracted)
    if change == "checkpoint":
        subject = Subject("tiny", subject.tokenizer, subject.device, "1" * 64)
    if change == "images":
        images = Images(images.source, limit=6, seed=3)
    FeatureCache(subject, images, 3).collect([FeatureSource(2 if change == "source" else 1)], "train")
    assert len(extracted) > before


def test_unreadable_images_are_left_out_and_remembered(
    subject: Subject, tmp_path: Path, images: Images, extracted: list[int]
) -> None:
    (tmp_path / "photos" / "4.png").write_bytes(b"no picture")
    for _ in range(2):  # the second time from the cache
        broken = Images(str(tmp_path / "photos"))
        features = FeatureCache(subject, broken, 3).collect([FeatureSource(1)], "train")[FeatureSource(1)]
        assert features.keys == [f"{number}.png" for number in (0, 1, 2, 3, 5, 6)]
        assert list(broken.unreadable) == ["4.png"]
    for file in (tmp_path / "photos").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="no image is readable"):
        FeatureCache(subject, Images(str(tmp_path / "photos")), 3).collect([FeatureSource(1)], "train")


def blobs(spread: float, count: int = 120) -> Problem:
    """Three classes around corners of a cube, in features of very different scales."""
    generator = np.random.default_rng(0)
    classes = np.arange(2 * count) % 3
    features = np.eye(3)[classes] + spread * generator.standard_normal((2 * count, 3))
    features = (features * [1, 1000, 0.001]).astype(np.float32)
    return Problem(features[:count], classes[:count], features[count:], classes[count:])


@pytest.mark.parametrize("fit", [fit_mlp, fit_linear])
def test_classes_that_lie_apart_are_told_apart(fit: object) -> None:
    assert fit(blobs(0.05), 0)["top1"] == 100  # type: ignore[operator]
    assert fit(blobs(30.0), 0)["top1"] < 55  # type: ignore[operator]


def test_the_penalty_is_chosen_without_the_test_images() -> None:
    problem = blobs(0.5)
    wrong = Problem(problem.train, problem.train_classes, problem.test, (problem.test_classes + 1) % 3)
    for name in ("C", "val_top1"):
        assert fit_linear(problem, 0)[name] == fit_linear(wrong, 0)[name]
    assert fit_linear(problem, 0)["top1"] > 70 > fit_linear(wrong, 0)["top1"]


def test_fits_repeat() -> None:
    for fit in (fit_mlp, fit_linear):
        assert fit(blobs(0.7), 3) == fit(blobs(0.7), 3)


def test_two_images_of_each_class_can_be_fitted() -> None:
    features = np.arange(8, dtype=np.float32)[:, None].repeat(2, 1)
    problem = Problem(features, np.arange(8) // 2, features + 0.1, np.arange(8) // 2)
    for fit in (fit_mlp, fit_linear):
        assert 0 <= fit(problem, 0)["top1"] <= 100


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0.05, 0.5))
def test_validation_has_room_for_every_class(extra: list[int], share: float) -> None:
    classes = np.array([*range(10), *range(10), *extra])
    count = validation_images(classes, share)
    assert 10 <= count <= len(classes) / 2


def test_scores_are_percent_with_a_binomial_error() -> None:
    found = score(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0]))
    assert found["top1"] == 75
    assert found["top1_stderr"] == pytest.approx(100 * (0.75 * 0.25 / 4) ** 0.5)


def test_sources_of_a_model_with_hidden_layers(subject: Subject) -> None:
    tokens = feature_sources(subject, "mlp")
    assert [source.num_tokens for source in tokens] == ["1", "2", "4", "8", "16", "auto"]
    assert {source.layer for source in tokens} == {"tokens"}
    assert [source.layer for source in feature_sources(subject, "linear")] == [1, 2]
    found = feature_sources(subject, "linear", (), ["tokens", "2", "latents", "patches", "2"])
    assert found == [
        FeatureSource("tokens", "16"),
        FeatureSource(2),
        FeatureSource("latents"),
        FeatureSource("patches"),
    ]
    for layer in ("0", "3", "-1", "last"):
        with pytest.raises(UserError, match="tiny has layers 1 to 2"):
            feature_sources(subject, "linear", (), [layer])


class Flat(FixedLength):
    """Every image becomes four tokens: the means of its quarters of rows."""

    def __init__(self) -> None:
        super().__init__(image_size=16, max_tokens=4, token_dim=3)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def quantized_values(self, images: torch.Tensor) -> torch.Tensor:
        return images.unflatten(2, (4, 4)).mean((3, 4)).transpose(1, 2)


def test_a_tokenizer_without_hidden_layers_is_probed_on_its_tokens(images: Images) -> None:
    flat = Subject("flat", Flat(), torch.device("cpu"), "2" * 64)
    sources = feature_sources(flat, "linear", (), ["all"])
    assert sources == [FeatureSource("tokens", "4")]
    assert FeatureCache(flat, images, 4).collect(sources, "train")[sources[0]].values.shape == (7, 6)
    assert feature_sources(flat, "mlp", ["2"]) == sources


def test_the_best_layer_is_the_validation_s_not_the_test_s() -> None:
    def row(layer: int | str, validation: float, test: float) -> dict[str, object]:
        return {"model": "m", "dataset": "d", "layer": layer, "val_top1": validation, "top1": test}

    (best,) = best_layers([row("latents", 99, 99), row(1, 40, 50), row(2, 45, 44), row(3, 45, 46)])
    assert (best["layer"], best["top1"]) == (2, 44)
    assert best["best_on_test"] == {"layer": 1, "top1": 50}
    assert best_layers([row("tokens", 9, 8)])[0]["layer"] == "tokens"
