import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.tokens import Tokens, format_token_count

CAPACITY = 6

some_lengths = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=5)


def make_tokens(lengths: list[int]) -> Tokens:
    """Tokens of which every kept value is a distinct positive number."""
    values = torch.arange(1, len(lengths) * CAPACITY * 2 + 1).float().view(len(lengths), CAPACITY, 2)
    return Tokens.cut(values, torch.tensor(lengths))


@given(some_lengths)
def test_cut_zeroes_exactly_the_tail(lengths):
    tokens = make_tokens(lengths)
    for row, length in zip(tokens.values, lengths, strict=True):
        assert (row[:length] > 0).all()
        assert (row[length:] == 0).all()
    assert torch.equal(tokens.mask, tokens.values[..., 0] > 0)


def test_cut_removes_nan_and_stops_gradients():
    values = torch.full((1, 3, 2), float("nan"))
    values[0, 0] = 1
    values.requires_grad_()
    tokens = Tokens.cut(values, torch.tensor([1]))
    tokens.values.square().sum().backward()
    assert tokens.values.tolist() == [[[1, 1], [0, 0], [0, 0]]]
    assert values.grad is not None
    assert values.grad.tolist() == [[[2, 2], [0, 0], [0, 0]]]


def test_cut_pads_to_the_capacity():
    tokens = Tokens.cut(torch.ones(2, 3, 4), torch.tensor([3, 2]), max_tokens=5)
    assert tokens.values.shape == (2, 5, 4)
    assert tokens.mask.sum(1).tolist() == [3, 2]


@given(some_lengths)
def test_ragged_round_trip(lengths):
    tokens = make_tokens(lengths)
    sequences = tokens.ragged()
    assert [len(sequence) for sequence in sequences] == lengths
    again = Tokens.from_ragged(sequences, CAPACITY)
    assert torch.equal(again.values, tokens.values)
    assert torch.equal(again.lengths, tokens.lengths)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "no token sequence"),
        ([(0, 2)], "0 tokens"),
        ([(1, 2), (7, 2)], "sequence 1 has 7"),
        ([(1, 2), (1, 3)], "1"),
    ],
)
def test_from_ragged_names_what_does_not_fit(shapes, message):
    with pytest.raises(UserError, match=message):
        Tokens.from_ragged([torch.ones(shape) for shape in shapes], CAPACITY)


@given(some_lengths, st.integers(1, CAPACITY))
def test_truncate_keeps_shorter_ones(lengths, num_tokens):
    tokens = make_tokens(lengths).truncate(num_tokens)
    assert tokens.lengths.tolist() == [min(length, num_tokens) for length in lengths]
    assert (tokens.values[:, num_tokens:] == 0).all()
    assert tokens.values.shape[1] == CAPACITY


@pytest.mark.parametrize("num_tokens", [0, -1, CAPACITY + 1])
def test_truncate_out_of_range(num_tokens):
    with pytest.raises(UserError, match=f"num_tokens={num_tokens}"):
        make_tokens([1]).truncate(num_tokens)


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        (0, [1]),
        (-1, [3]),
        (slice(1, None), [2, 3]),
        ([2, 0], [3, 1]),
        ([], []),
        (torch.tensor([True, False, True]), [1, 3]),
    ],
)
def test_indexing_keeps_values_and_lengths_together(rows, lengths):
    chosen = make_tokens([1, 2, 3])[rows]
    assert chosen.lengths.tolist() == lengths
    assert chosen.mask.sum(1).tolist() == lengths
    assert (chosen.values != 0).all(-1).equal(chosen.mask)


def test_iteration_ends():
    assert [tokens.lengths.item() for tokens in make_tokens([1, 2, 3])] == [1, 2, 3]


def test_cat_restores_the_batch():
    tokens = make_tokens([1, 2, 3])
    again = Tokens.cat([tokens[:1], tokens[1:]])
    assert len(again) == 3
    assert torch.equal(again.values, tokens.values)
    assert torch.equal(again.lengths, tokens.lengths)


def test_to_leaves_lengths_integers():
    tokens = make_tokens([1, 2]).to(torch.float16)
    assert tokens.values.dtype == torch.float16
    assert tokens.lengths.dtype == torch.int64


def test_a_number_of_tokens_is_singular_for_one_alone():
    assert [format_token_count(number) for number in (1, 2, 64)] == ["1 token", "2 tokens", "64 tokens"]
