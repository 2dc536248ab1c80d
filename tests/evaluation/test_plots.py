"""Diagrams of many models stay readable: legends under the panels, numbers of tokens in their order."""

import random

import numpy as np
import pytest

from dove.evaluation.feature_cache import FeatureSource
from dove.evaluation.plots import COLOURS, GREY, cloud, legend_below, log_axis, looks, panels
from dove.evaluation.probe_plots import layer_order


@pytest.mark.parametrize("count", [1, 8])
def test_the_legend_covers_no_panel_and_names_every_model_once(count: int) -> None:
    figure, axes = panels(1, 2)
    look = looks(f"model {number}" for number in range(count))
    for panel in axes:
        for number in range(count):
            panel.plot([4, 64], [number, number], label=f"model {number}", **look[f"model {number}"])
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
    names = "patches, latents, layer 2, layer 10, tokens@4, tokens@16, tokens@64, tokens, tokens@auto".split(", ")
    wanted = [FeatureSource("patches"), FeatureSource("latents"), FeatureSource(2), FeatureSource(10)]
    wanted += [FeatureSource("tokens", length) for length in ("4", "16", "64", None, "auto")]
    shuffled = random.Random(0).sample(wanted, len(wanted))
    assert [*map(str, sorted(shuffled, key=layer_order))] == names


def test_eight_points_are_seen_and_eight_thousand_do_not_blot() -> None:
    figure, (few, many) = panels(1, 2)
    for panel, count in ((few, 8), (many, 8000)):
        cloud(panel, np.geomspace(600, 40_000, count), np.arange(count), COLOURS[0])
        log_axis(panel)
    (sparse,), (dense,) = few.collections, many.collections
    assert sparse.get_sizes()[0] >= 20 > 3 > dense.get_sizes()[0]  # type: ignore[attr-defined]
    assert sparse.get_alpha() >= 0.8 > 0.3 > dense.get_alpha()  # type: ignore[operator]
    figure.draw_without_rendering()
    shown = [label.get_text() for label in few.get_xticklabels(which="both") if label.get_text()]
    assert "1,000" in shown
    assert len(shown) <= 8


def test_trivial_models_are_grey_and_every_model_has_a_look_of_its_own() -> None:
    found = looks(["cosines", *(f"model {number}" for number in range(12)), "flat colour", "model 3"])
    assert [name for name, look in found.items() if look["color"] == GREY] == ["cosines", "flat colour"]
    assert len({tuple(look.values()) for look in found.values()}) == len(found) == 14
    assert [found[f"model {number}"]["color"] for number in range(7)] == list(COLOURS)
