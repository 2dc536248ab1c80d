"""Diagrams of many models stay readable: legends under the panels, numbers of tokens in their order."""

import random

import pytest

from dove.evaluation.plots import COLOURS, legend_below, panels
from dove.evaluation.probe_plots import _order


@pytest.mark.parametrize("count", [1, 8])
def test_the_legend_covers_no_panel_and_names_every_model_once(count: int) -> None:
    figure, axes = panels(1, 2)
    for panel in axes:
        for number in range(count):
            panel.plot([4, 64], [number, number], color=COLOURS[number], label=f"model {number}")
    legend_below(figure, axes)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"model {number}" for number in range(count)]
    box = legend.get_window_extent()
    for panel in axes:
        around = panel.get_tightbbox()
        assert around is not None
        assert box.y1 <= around.y0
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_layers_and_numbers_of_tokens_are_in_their_order() -> None:
    wanted = "latents, layer 2, layer 10, tokens@4, tokens@16, tokens@64, tokens, tokens@auto".split(", ")
    shuffled = random.Random(0).sample(wanted, len(wanted))
    assert sorted(shuffled, key=_order) == wanted
