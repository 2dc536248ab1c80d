import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

from dove.errors import UserError
from dove.losses import length
from dove.losses.length import RunningThreshold, eos_loss, eos_weight

MAX_TOKENS = 6


def reference(probability: list[float], length: int, loss: float, threshold: float) -> float:
    """Eq. 3 with positions counted from 1, in plain Python."""
    m = length + 1
    p = dict(enumerate(probability, start=1))
    p[1] = 0.0
    if loss > threshold:
        return p.get(m, 0.0)
    if m == 1:
        return 0.0
    return -1 / (m - 1) * sum(p[i] for i in range(1, m))


unit = st.floats(0, 1, width=32)
sample = st.tuples(
    st.lists(unit, min_size=MAX_TOKENS, max_size=MAX_TOKENS), st.integers(0, MAX_TOKENS), st.floats(0, 4, width=32)
)


@settings(deadline=None)  # the first call warms torch up
@given(samples=st.lists(sample, min_size=1, max_size=5), threshold=st.floats(0, 4, width=32))
def test_agrees_with_eq_3_in_plain_python(samples, threshold):
    probability, lengths, losses = zip(*samples, strict=True)
    found = eos_loss(torch.tensor(probability), torch.tensor(lengths), torch.tensor(losses), threshold)
    expected = [reference(*sample, threshold) for sample in samples]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-6)


@settings(deadline=None)  # the first call warms torch up
@given(
    probability=st.lists(unit, min_size=1, max_size=1), length=st.integers(0, 1), loss=st.sampled_from([0.0, 1.0, 2.0])
)
def test_a_capacity_of_one_token_leaves_nothing_to_learn(probability, length, loss):
    assert eos_loss(torch.tensor([probability]), torch.tensor([length]), torch.tensor([loss]), 1.0).item() == 0


def gradient(length: int, loss: float) -> torch.Tensor:
    """The gradient of the loss with respect to p(1..6), threshold 1."""
    probability = torch.full((1, MAX_TOKENS), 0.5, requires_grad=True)
    eos_loss(probability, torch.tensor([length]), torch.tensor([loss]), 1.0).sum().backward()
    return probability.grad[0]


def test_a_well_rebuilt_sample_raises_p_at_all_earlier_positions():
    expected = torch.tensor([0.0, -1 / 4, -1 / 4, -1 / 4, 0.0, 0.0])
    torch.testing.assert_close(gradient(length=4, loss=0.9), expected)


def test_a_badly_rebuilt_sample_lowers_p_at_its_eos_alone():
    torch.testing.assert_close(gradient(length=4, loss=1.1), torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]))


def test_a_loss_at_the_threshold_counts_as_good_enough():
    torch.testing.assert_close(gradient(length=4, loss=1.0), gradient(length=4, loss=0.5))


def test_without_an_eos_there_is_nothing_to_postpone_but_all_to_advance():
    assert gradient(length=MAX_TOKENS, loss=2.0).count_nonzero() == 0
    expected = torch.tensor([0.0] + [-1 / MAX_TOKENS] * (MAX_TOKENS - 1))
    torch.testing.assert_close(gradient(length=MAX_TOKENS, loss=0.0), expected)


@pytest.mark.parametrize("loss", [0.0, 2.0])
def test_an_eos_at_position_1_has_no_loss_and_no_gradient(loss):
    assert gradient(length=0, loss=loss).count_nonzero() == 0


def test_no_gradient_flows_into_the_compared_losses():
    losses = torch.tensor([0.5, 2.0], requires_grad=True)
    probability = torch.full((2, MAX_TOKENS), 0.5, requires_grad=True)
    eos_loss(probability, torch.tensor([3, 3]), losses, 1.0).sum().backward()
    assert losses.grad is None


def test_half_precision_probabilities_give_a_float32_loss():
    probability = torch.full((1, MAX_TOKENS), 1 / 3).bfloat16()
    assert eos_loss(probability, torch.tensor([3]), torch.tensor([0.0]), 1.0).dtype == torch.float32


@settings(deadline=None)  # the first call warms torch up
@given(
    steps=st.lists(st.lists(st.floats(0, 4, width=32), min_size=1, max_size=3), min_size=1, max_size=12),
    window=st.integers(1, 5),
)
def test_threshold_is_the_mean_over_the_previous_steps_of_the_window(steps, window):
    threshold = RunningThreshold(window)
    assert threshold.value is None
    means: list[float] = []
    for losses in steps:
        mean = sum(losses) / len(losses)
        remembered = means[-window:] or [mean]
        assert threshold.step(torch.tensor(losses)) == pytest.approx(sum(remembered) / len(remembered), abs=1e-5)
        means.append(mean)
    assert threshold.value == pytest.approx(sum(means[-window:]) / len(means[-window:]), abs=1e-5)


def test_steps_count_equally_whatever_their_batch_size():
    threshold = RunningThreshold()
    threshold.step(torch.tensor([1.0, 1.0, 1.0]))
    threshold.step(torch.tensor([3.0]))
    assert threshold.value == 2.0


def test_batches_of_one_step_share_an_entry_and_a_threshold():
    threshold = RunningThreshold()
    threshold.step(torch.tensor([5.0]), number=0)
    assert [threshold.step(torch.tensor([loss]), number=1) for loss in (1.0, 2.0, 6.0)] == [5.0, 5.0, 5.0]
    assert threshold.state_dict() == {"means": [5.0, 3.0]}
    assert threshold.step(torch.tensor([9.0]), number=2) == 4.0


def test_the_papers_window_is_100_steps():
    threshold = RunningThreshold()
    for step in range(101):
        threshold.step(torch.tensor([float(step)]))
    assert threshold.value == pytest.approx(sum(range(1, 101)) / 100)


def test_a_non_finite_step_is_not_remembered():
    threshold = RunningThreshold(3)
    threshold.step(torch.tensor([1.0]))
    assert threshold.step(torch.tensor([math.nan, 1.0])) == 1.0
    assert threshold.step(torch.tensor([math.inf])) == 1.0
    assert threshold.value == 1.0


def test_threshold_holds_no_graph():
    threshold = RunningThreshold()
    losses = torch.tensor([1.0, 2.0], requires_grad=True) * 1.0
    assert isinstance(threshold.step(losses), float)
    assert all(isinstance(mean, float) for mean in threshold.state_dict()["means"])


def test_a_restored_threshold_goes_on_bitwise_alike():
    steps = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    whole, first, second = RunningThreshold(4), RunningThreshold(4), RunningThreshold(4)
    expected = [whole.step(losses) for losses in steps]
    found = [first.step(losses) for losses in steps[:5]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [second.step(losses) for losses in steps[5:]]
    assert found == expected


def test_restoring_replaces_what_was_there_and_keeps_the_latest_that_fit():
    threshold = RunningThreshold(2)
    threshold.step(torch.tensor([9.0]))
    threshold.load_state_dict({"means": [1.0, 2.0, 3.0]})
    assert threshold.state_dict() == {"means": [2.0, 3.0]}


def test_an_empty_window_is_refused():
    with pytest.raises(UserError, match="0 steps"):
        RunningThreshold(0)


def test_each_step_is_reduced_before_it_is_remembered(monkeypatch):
    monkeypatch.setattr(length, "mean_over_ranks", lambda mean: mean + 10)
    threshold = RunningThreshold()
    assert threshold.step(torch.tensor([1.0, 3.0])) == 12.0
    assert threshold.value == 12.0


def take_steps(rank: int, folder: str) -> None:
    """One of two ranks: losses of rank + step, thresholds written down."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    threshold = RunningThreshold(2)
    found = [threshold.step(torch.tensor([float(rank + step)])) for step in range(4)]
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    distributed.destroy_process_group()


def test_two_ranks_share_one_threshold(tmp_path):
    # Forked, not spawned: two more imports of torch would take longer than every other test of this file.
    torch.multiprocessing.start_processes(take_steps, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [0.5, 0.5, 1.0, 2.0]


def test_weight_waits_and_then_rises():
    shares = (0.0, 0.25, 0.5, 0.625, 0.75, 1.0)
    weights = [eos_weight(share, 0.2, delay=0.25, ramp=0.5) for share in shares]
    assert weights == pytest.approx([0.0, 0.0, 0.1, 0.15, 0.2, 0.2])


def test_without_delay_and_ramp_the_weight_is_there_at_once():
    assert eos_weight(0.0, 0.2, delay=0.0, ramp=0.0) == 0.2
    assert [eos_weight(share, 0.2, delay=0.5, ramp=0.0) for share in (0.0, 0.49, 0.5)] == [0.0, 0.0, 0.2]
