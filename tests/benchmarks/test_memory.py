"""Memory is counted alike with and without contents."""

from dataclasses import replace
from pathlib import Path

import pytest

from dove.config import DoveConfig
from dove.training.presets import PRESETS


def test_blocks_computed_twice_keep_less(tiny_config: DoveConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import memory

    monkeypatch.setitem(PRESETS, "small", replace(PRESETS["dove-base"], model=tiny_config))  # type: ignore[type-var]
    monkeypatch.setattr(memory, "BATCHES", (64, 128))
    plain, twice = (memory.measure("small", "none", "bf16", twice=twice) for twice in (False, True))
    assert 0 < twice["kept_gb_per_image"] < plain["kept_gb_per_image"]
    assert plain["peak_gb_per_image"] >= plain["kept_gb_per_image"]
    assert twice["peak_gb_per_image"] < plain["peak_gb_per_image"]
    assert list(plain["images_that_fit"].values()) == sorted(plain["images_that_fit"].values())
