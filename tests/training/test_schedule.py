"""Learning rate by step."""

from dove.training.config import OptimConfig
from dove.training.schedule import learning_rate


def test_warm_up_peak_and_end() -> None:
    config = OptimConfig(lr=1.0, final_lr=0.1, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[0] == 0.1
    assert rates[9] == 1.0
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert abs(rates[60] - 0.55) < 1e-9
    assert abs(rates[110] - 0.1) < 1e-9
