"""Metrics against cases computed by hand from their published definitions."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.vlm.metrics import (
    CONTRACTIONS,
    anls,
    exact_match,
    get_metric,
    levenshtein,
    normalize_vqa,
    option_letter,
    relaxed_accuracy,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A red Car.", "red car"),
        ("two", "2"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("1,000", "1000"),
        ("left/right", "left right"),
        ("yes, it is", "yes it is"),
        ("3.5", "3.5"),
        ("St. Mary's\n", "st mary's"),
        ("T-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("the", ""),
    ],
)
def test_normalisation_of_vqa(answer: str, normal: str) -> None:
    assert normalize_vqa(answer) == normal


def test_contractions_are_listed_with_any_one_apostrophe_left_out() -> None:
    expected = {"yall'd've", "y'alld've", "y'all'dve"}
    assert {short for short, long in CONTRACTIONS.items() if long == "y'all'd've"} == expected
    assert CONTRACTIONS["hes"] == "he's"
    assert "well" not in CONTRACTIONS
    assert CONTRACTIONS["somebody'd"] == "somebodyd"


def test_vqa_accuracy_leaves_each_person_out_once() -> None:
    # Two of ten agree: for those two one other agrees (1/3), for the other eight two do (2/3).
    assert vqa_accuracy("red", ["red"] * 2 + ["blue"] * 8) == pytest.approx(0.6)
    assert vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7) == pytest.approx(0.9)
    assert vqa_accuracy("Red.", ["red"] * 4 + ["blue"] * 6) == 1
    assert vqa_accuracy("green", ["red"] * 10) == 0
    assert vqa_accuracy("a dog", ["dog"]) == 1


def test_anls() -> None:
    assert anls("Invoice", ["invoice"]) == 1
    assert anls("abcd", ["abce"]) == pytest.approx(0.75)
    assert anls("ab", ["ac"]) == 0  # a distance of one half scores nothing
    assert anls("abce", ["xxxx", "abcd"]) == pytest.approx(0.75)
    assert anls("", ["a"]) == 0


@cache
def plain_levenshtein(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    change = plain_levenshtein(first[1:], second[1:]) + (first[0] != second[0])
    return min(change, 1 + plain_levenshtein(first[1:], second), 1 + plain_levenshtein(first, second[1:]))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_levenshtein_against_its_definition(first: str, second: str) -> None:
    assert levenshtein(first, second) == plain_levenshtein(first, second)


def test_relaxed_accuracy() -> None:
    assert relaxed_accuracy("104.9", ["100"]) == 1
    assert relaxed_accuracy("105.1", ["100"]) == 0
    assert relaxed_accuracy("-95", ["-100"]) == 1
    assert relaxed_accuracy("50%", ["0.5"]) == 1
    assert relaxed_accuracy("0.001", ["0"]) == 0
    assert relaxed_accuracy("0", ["0"]) == 1
    assert relaxed_accuracy("Blue ", ["blue"]) == 1


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("B. the blue one", "B"),
        ("The answer is C.", "C"),
        ("answer: (D)", "D"),
        ("blue", None),
        ("A dog", None),
        ("", None),
    ],
)
def test_option_letters(said: str, letter: str | None) -> None:
    assert option_letter(said) == letter


def test_exact_match_and_names() -> None:
    assert exact_match(" Red.", ["red"]) == 1
    assert exact_match("red one", ["red"]) == 0
    assert get_metric("option")("the answer is A", ["a"]) == 1
    with pytest.raises(UserError, match="no metric 'bleu'; the metrics are vqa"):
        get_metric("bleu")
