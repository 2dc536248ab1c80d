import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.lengths import (
    Auto,
    Budget,
    Fixed,
    LengthPolicy,
    PerceptualAtMost,
    PsnrAtLeast,
    SearchPsnr,
    parse_length_policy,
)
from dove.models.eos import EosScores

margins = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12)


def scores(*rows: list[float]) -> EosScores:
    margin = torch.tensor(rows)
    return EosScores(probability=margin.sigmoid(), margin=margin)


def plain_auto(margins: list[float], bias: float) -> int:
    """The rule word by word, counting positions from 1."""
    for position, margin in enumerate(margins, start=1):
        if position >= 2 and margin + bias > 0:
            return position - 1
    return len(margins)


@given(margins, st.sampled_from([0.0, -1.0, 1.5]))
def test_auto_follows_the_rule(row, bias):
    assert Auto(eos_bias=bias).lengths(scores(row)).tolist() == [plain_auto(row, bias)]


@given(margins, st.floats(0, 2, width=32), st.integers(1, 12))
def test_more_bias_and_a_lower_limit_never_give_more_tokens(row, bias, limit):
    free = Auto().lengths(scores(row))
    assert (Auto(eos_bias=bias).lengths(scores(row)) <= free).all()
    assert Auto(max_tokens=limit).lengths(scores(row)).tolist() == [min(limit, free.item())]


@pytest.mark.parametrize(
    ("row", "length"),
    [([9.0, -1.0, -1.0], 3), ([9.0, 9.0, 9.0], 1), ([-1.0, -1.0, 1.0], 2), ([-1.0, 0.0, -1.0], 3), ([9.0], 1)],
    ids=["masked at position 1", "shortest", "last position", "a tie is no EOS", "one position"],
)
def test_auto_at_the_borders(row, length):
    assert Auto().lengths(scores(row)).tolist() == [length]


def test_auto_leaves_the_scores_alone():
    eos = scores([9.0, 9.0])
    Auto().lengths(eos)
    assert eos.margin.tolist() == [[9.0, 9.0]]


def test_fixed_ignores_eos():
    assert Fixed(2).lengths(scores([9.0, 9.0, 9.0], [-1.0, -1.0, -1.0])).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("request_", "policy", "positions"),
    [
        ("auto", Auto(), 16),
        (" AUTO ", Auto(), 16),
        ("auto+1.5", Auto(eos_bias=1.5), 16),
        ("auto-.5", Auto(eos_bias=-0.5), 16),
        ("max 12", Auto(max_tokens=12), 12),
        ("auto+2 max 3", Auto(eos_bias=2.0, max_tokens=3), 3),
        (1, Fixed(1), 1),
        ("16", Fixed(16), 16),
        (Fixed(4), Fixed(4), 4),
        ("psnr>=25", PsnrAtLeast(25.0), 16),
        ("PSNR >= 25.125", PsnrAtLeast(25.125), 16),
        ("lpips<=.1", PerceptualAtMost(0.1), 16),
        ("budget 4", Budget(4.0), 16),
        ("budget 4.3", Budget(4.3), 16),
        ("search psnr>=25.", SearchPsnr(25.0), 16),
        ("auto-0.0000001", Auto(eos_bias=-1e-7), 16),
        ("auto+12.3456789", Auto(eos_bias=12.3456789), 16),
        ("lpips<=0.00001", PerceptualAtMost(1e-5), 16),
    ],
)
def test_parse(request_, policy, positions):
    parsed = parse_length_policy(request_, 16)
    assert parsed == policy
    assert parsed.positions(16) == positions
    assert parse_length_policy(str(parsed), 16) == parsed


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (0, "num_tokens=0 is too few; pass 1 to 16"),
        ("-3", "num_tokens=-3 is too few; pass 1 to 16"),
        (17, "num_tokens=17 exceeds max_tokens=16; pass 1 to 16"),
        ("max 17", "num_tokens=17 exceeds max_tokens=16"),
        ("max 0", "num_tokens=0 is too few"),
        ("auto max -1", "num_tokens=-1 is too few"),
        ("many", "num_tokens='many' is not understood; pass a number from 1 to 16; auto"),
        ("", "num_tokens='' is not understood"),
        ("4.5", "num_tokens='4.5' is not understood"),
        (True, "num_tokens='True' is not understood"),
        (Fixed(17), "num_tokens=17 exceeds"),
        ("psnr>=0", "num_tokens='psnr>=0': the quality must be above 0"),
        ("psnr>=", "num_tokens='psnr>=' is not understood"),
        ("psnr<=20", "num_tokens='psnr<=20' is not understood; .*psnr>=DECIBELS; lpips<=DISTANCE; budget NUMBER"),
        ("search lpips<=1", "is not understood"),
        ("lpips<=-1", "is not understood"),
        ("budget 0.5", "num_tokens='budget 0.5' is out of range; pass budget 1 to budget 16"),
        ("budget -3", "num_tokens='budget -3' is out of range"),
        ("budget 17", "num_tokens='budget 17' is out of range"),
        ("budget", "is not understood"),
        (Budget(17.0), "'budget 17' is out of range"),
        (Auto(max_tokens=17), "num_tokens=17 exceeds"),
        ("9" * 5000, "is not understood"),
        ("max " + "9" * 5000, "is not understood"),
        ("psnr>=" + "9" * 400, "the quality of psnr>= is inf; pass a finite number"),
    ],
)
def test_parse_says_what_is_wrong(request_, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        parse_length_policy(request_, 16)


def test_a_further_policy_only_needs_a_class(monkeypatch, tiny_dove, images):
    class BestOfTwo(LengthPolicy):
        """Looks at reconstructions, as policies that aim at a quality will."""

        syntax = "best"

        @classmethod
        def parse(cls, text, max_tokens):
            return cls() if text == "best" else None

        def lengths(self, eos, trial=None):
            few, many = torch.full((len(eos.margin),), 2), torch.full((len(eos.margin),), 9)
            errors = [(trial.reconstruct(n) - trial.images).square().mean((1, 2, 3)) for n in (few, many)]
            return torch.where(errors[0] < errors[1], few, many)

    monkeypatch.setattr("dove.lengths.POLICIES", (Fixed, Auto, BestOfTwo))
    tokens = tiny_dove.encode(images, "best")
    assert set(tokens.lengths.tolist()) <= {2, 9}
    with pytest.raises(UserError, match="best"):
        parse_length_policy("worst", 16)
