"""Memory is counted alike with and without contents."""

from pathlib import Path

import pytest


def test_blocks_computed_twice_keep_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import memory

    plain, twice = (memory.measure("dove-tiny-paper", "none", "bf16", twice=twice) for twice in (False, True))
    assert 0 < twice["kept_gb_per_image"] < plain["kept_gb_per_image"]
    assert plain["peak_gb_per_image"] >= plain["kept_gb_per_image"]
    assert twice["peak_gb_per_image"] < plain["peak_gb_per_image"]
    assert list(plain["images_that_fit"].values()) == sorted(plain["images_that_fit"].values())
