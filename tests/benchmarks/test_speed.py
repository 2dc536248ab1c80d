"""The composition that DOVE is measured against, and the ratios."""

import mmap
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from matplotlib.figure import Figure

from dove.tokenizer import Dove


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/speed.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "speed", raising=False)
    import speed

    return speed


@pytest.mark.parametrize("num_tokens", [None, 5, 16])
def test_the_composition_gives_the_same_tokens_and_images(tiny_config, images, speed, num_tokens):
    torch.manual_seed(0)
    vqgan = replace(tiny_config.vqgan, patch_size=1, block_out_channels=(8, 8, 16))
    model = Dove(replace(tiny_config, vqgan=vqgan, eos_head="vocab")).eval()
    composed = speed.compose(model)
    values, lengths = composed.encode(images, num_tokens)
    tokens = model.encode(images, "auto" if num_tokens is None else num_tokens)
    assert lengths.tolist() == tokens.lengths.tolist()
    torch.testing.assert_close(values, tokens.values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(composed.decode(values), model.decode(tokens), atol=1e-5, rtol=1e-4)


def measured(speed: ModuleType, system: str, precision: str, seconds: list[float], work: str = "encode"):
    return speed.Measurement(
        system=system, work=work, precision=precision, batch_size=2, tokens=4, run=list, seconds=seconds
    )


def test_ratios_are_medians_of_quotients_within_a_round(speed):
    # The second round was slow for all; the quotient of medians would be another.
    rows = [
        measured(speed, "ours", "bf16", [1, 10, 2]),
        measured(speed, "composition", "fp32", [4, 50, 4]),
        measured(speed, "patch", "bf16", [1, 1, 1]),
        measured(speed, "titok-s128", "bf16", [3, 2, 1]),
    ]
    found = speed.ratios(rows, 2, "titok-s128")
    assert found == {
        "encode_vs_fp32_composition": 4,
        "patch_encode_vs_fp32_composition": 4,
        "encode_vs_titok_s128": 2,
        "vqgan_encode_vs_titok_s128": 0.5,
    }


def test_the_fastest_rounds_leave_disturbances_out(speed):
    rows = [measured(speed, "ours", "bf16", [1, 60]), measured(speed, "composition", "fp32", [90, 4])]
    found = speed.ratios(rows, 2, "titok-s128", speed.fastest_quotient)
    assert found == {"encode_vs_fp32_composition": 4}


def test_the_picture_shows_what_was_measured(speed):
    import speed_picture

    def row(system: str, work: str, precision: str, tokens: int, size: int = 8) -> dict:
        found = speed.Measurement(
            system=system, work=work, precision=precision, batch_size=size, tokens=tokens, run=list, seconds=[tokens]
        )
        return found.row(1.0)

    rows = [row("composition", work, "fp32", 4) for work in ("encode", "decode")]
    rows += [row("ours", "encode", "bf16", tokens) for tokens in (1, 2, 4)]
    rows += [row("ours", "decode", "bf16", 4), row("titok", "encode", "fp32", 2), row("ours", "encode", "fp32", 4, 1)]
    left, right = Figure().subplots(1, 2)
    speed_picture.plot_lengths(left, rows)
    assert [list(line.get_ydata()) for line in left.lines] == [[0.25, 0.5, 1.0]]
    speed_picture.plot_systems(right, rows)
    assert [text.get_text() for text in right.get_yticklabels()] == ["composition, fp32", "dove-base, bf16"]
    assert [bar.get_width() for bar in right.patches] == [1.0] * 4
    assert speed_picture.picture(rows).startswith(b"\x89PNG")


def test_round_trips_need_both_directions(speed):
    rows = [
        measured(speed, system, precision, [seconds], work)
        for system, precision, seconds in (("ours", "bf16", 1), ("composition", "bf16", 3))
        for work in ("encode", "decode")
    ]
    assert speed.ratios(rows, 2, "titok-s128")["round_trip_vs_bf16_composition"] == 3


def test_memory_is_that_of_the_call(speed):
    def touch() -> None:
        with mmap.mmap(-1, 64 * 2**20) as pages:  # new pages, which no allocator has kept from an earlier test
            for position in range(0, len(pages), mmap.PAGESIZE):
                pages[position] = 1

    taken = speed.memory_of(touch, torch.device("cpu"))
    assert taken == 0 or 48 * 2**20 < taken < 160 * 2**20  # 0 where the kernel does not tell


def test_the_profile_accounts_for_every_convolution(tiny_config, images, speed):
    import time_profile

    model = Dove(
        replace(tiny_config, vqgan=replace(tiny_config.vqgan, patch_size=1, block_out_channels=(8, 8, 16)))
    ).eval()
    shapes = time_profile.convolutions(model, lambda: model.encode(images, 4))
    everything = speed.count_operations(lambda: model.vqgan.encode(images))
    assert sum(shape.operations * shape.calls for shape in shapes.values()) == pytest.approx(everything, rel=0.05)
    assert all(shape.seconds > 0 for shape in shapes.values())
    assert time_profile.least([{"a": 1, "b": 5}, {"a": 2, "b": 3}]) == {"a": 1, "b": 3}
