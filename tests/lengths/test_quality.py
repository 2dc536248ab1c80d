"""Policies that aim at a quality."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Int
from torch import Tensor

from dove.errors import UserError
from dove.lengths import Auto, Budget, LengthPolicy, PerceptualAtMost, PsnrAtLeast, SearchPsnr, Trial
from dove.models.eos import EosScores, QualityEosHead, scores_from_quality
from dove.tokenizer import Dove

curves = st.integers(1, 9).flatmap(
    lambda k: st.lists(st.lists(st.floats(1, 60, width=32), min_size=k, max_size=k), min_size=1, max_size=4)
)


def scores(quality: Tensor, perceptual: Tensor | None = None) -> EosScores:
    return EosScores(probability=quality.sigmoid(), margin=quality, quality=quality, perceptual=perceptual)


def fewest(values: list[float], enough: float) -> int:
    """The rule word by word."""
    for count, value in enumerate(values, start=1):
        if value >= enough:
            return count
    return len(values)


@given(curves, st.floats(1, 60, width=32))
def test_psnr_takes_the_first_length_that_reaches_it(rows: list[list[float]], x: float) -> None:
    found = PsnrAtLeast(x).lengths(scores(torch.tensor(rows))).tolist()
    assert found == [fewest(row, x) for row in rows]


@given(curves, st.floats(1, 60), st.floats(0, 20))
def test_more_psnr_never_takes_fewer_tokens(rows: list[list[float]], x: float, more: float) -> None:
    eos = scores(torch.tensor(rows))
    assert (PsnrAtLeast(x + more).lengths(eos) >= PsnrAtLeast(x).lengths(eos)).all()


@given(curves, st.floats(1, 60, width=32))
def test_auto_comes_nearest_to_the_target_where_quality_rises(rows: list[list[float]], target: float) -> None:
    quality = torch.tensor(rows).sort(dim=1).values
    lengths = Auto().lengths(scores_from_quality(quality, target))
    distance = (quality - target).abs()
    chosen = distance.gather(1, lengths[:, None] - 1)[:, 0]
    torch.testing.assert_close(chosen, distance.amin(1), atol=1e-4, rtol=0)


@given(curves, st.floats(1, 60, width=32))
def test_lpips_takes_the_first_length_that_comes_within_it(rows: list[list[float]], x: float) -> None:
    distances = 1 / torch.tensor(rows)
    found = PerceptualAtMost(float(x)).lengths(scores(torch.tensor(rows), distances)).tolist()
    assert found == [fewest([-d for d in row], -x) for row in distances.tolist()]


def levels(psnr: Float[Tensor, "B K"]) -> Trial:
    """Black images, and reconstructions of the evenly wrong grey that has these PSNRs."""

    def reconstruct(lengths: Int[Tensor, " B"]) -> Float[Tensor, "B 3 2 2"]:
        wanted = psnr.gather(1, lengths[:, None] - 1)[:, 0]
        return (-1 + 2 * 10 ** (-wanted / 20)).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    return Trial(images=torch.full((len(psnr), 3, 2, 2), -1.0), reconstruct=reconstruct)


@given(curves, st.integers(1, 60))
def test_search_finds_what_a_scan_finds_where_quality_grows(rows: list[list[float]], x: int) -> None:
    quality = torch.tensor(rows).round().sort(dim=1).values
    found = SearchPsnr(x - 0.5).lengths(scores(quality), levels(quality)).tolist()
    assert found == [fewest(row, x - 0.5) for row in quality.tolist()]


def test_search_decodes_log_k_times() -> None:
    calls = []
    plain = levels(torch.arange(1.0, 65.0).expand(3, -1))
    trial = Trial(images=plain.images, reconstruct=lambda n: calls.append(n) or plain.reconstruct(n))
    found = SearchPsnr(40.5).lengths(scores(torch.zeros(3, 64)), trial)
    assert found.tolist() == [41, 41, 41]
    assert len(calls) == 6


@pytest.mark.parametrize("policy", [PsnrAtLeast(20.0), PerceptualAtMost(0.1), Budget(2.0)], ids=str)
def test_models_that_predict_nothing_say_what_they_know(policy: LengthPolicy) -> None:
    margin = torch.zeros(2, 4)
    with pytest.raises(UserError, match=r"it knows a number, auto, max NUMBER, search psnr>=DECIBELS$") as error:
        policy.lengths(EosScores(probability=margin, margin=margin))
    assert str(policy) in str(error.value)


def test_a_head_without_perceptual_output_refuses_lpips_alone(tiny_dove: Dove, images: Tensor) -> None:
    tiny_dove.generator.eos_head = QualityEosHead(32, target=20.0)
    with pytest.raises(UserError, match=r"predicts perceptual distances.*knows.*psnr>=DECIBELS, budget NUMBER$"):
        tiny_dove.encode(images, "lpips<=0.1")
    tiny_dove.generator.eos_head = QualityEosHead(32, target=20.0, outputs=2)
    assert tiny_dove.encode(images, "lpips<=0.1").lengths.min() >= 1


def test_quality_policies_never_decode_and_search_does(tiny_dove: Dove, images: Tensor) -> None:
    tiny_dove.generator.eos_head = QualityEosHead(32, target=20.0, outputs=2)
    decodes = []
    tiny_dove.token_decoder.register_forward_hook(lambda *_: decodes.append(1))
    *_, budgeted = tiny_dove.encode_each(images, ["psnr>=20", "lpips<=0.1", "budget 4.5"])
    assert not decodes
    assert budgeted.lengths.sum() == int(4.5 * len(images))
    tiny_dove.encode(images, "search psnr>=9")
    assert len(decodes) == 4  # K = 16


def test_search_without_a_decoder_is_refused() -> None:
    with pytest.raises(UserError, match="decodes to choose"):
        SearchPsnr(20.0).lengths(scores(torch.zeros(1, 4)))


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_second_output_is_the_logarithm_of_the_distance(first: float, second: float) -> None:
    head = QualityEosHead(2, target=20.0, outputs=2)
    head.projection.bias.data = torch.tensor([first, second])  # its weights are zero
    eos = head(torch.randn(1, 1, 2), torch.full((1, 1), 20.0))
    assert eos.quality is not None
    assert eos.perceptual is not None
    assert eos.quality.item() == pytest.approx(20 + 10 * first, abs=1e-4)
    assert eos.perceptual.item() == pytest.approx(10 ** (second - 1), rel=1e-4)
