"""Models of the plans at paper scale have the published sizes; counted without contents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dove.baselines.alit import ALIT
from dove.baselines.titok import make_titok
from dove.baselines.vqgan import MaskgitTokenizer
from dove.paper import load_experiment
from dove.paper.models import load_models
from dove.tokenizer import Dove
from dove.training.presets import PRESETS


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def built(name: str, make: Callable[[Any], nn.Module]) -> nn.Module:
    """The model of the last training of an entry of models.yaml, without contents."""
    command = load_models()[name].train[-1]
    preset: Any = PRESETS[command[command.index("--preset") + 1].format(name=name)]
    with torch.device("meta"):
        return make(preset.model)


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("titok-l32", make_titok, 641_054_735),
        ("titok-b64", make_titok, 204_814_095),
        ("titok-s128", make_titok, 83_674_639),
        ("alit-small", ALIT, 262_048_399),
        ("maskgit-vqgan", MaskgitTokenizer, 54_515_587),
        ("dove-base", Dove, 184_929_412),
        ("gan-0", Dove, 184_929_412),
        ("gan-5e-9", Dove, 184_929_412),
    ],
)
def test_rivals_and_dove_have_their_sizes(name: str, make: Callable[[Any], nn.Module], expected: int) -> None:
    assert parameters(built(name, make)) == expected


def test_with_pythia_s_word_embeddings_dove_has_the_sizes_of_table_6_and_of_its_released_weights() -> None:
    """Both Pythias hold words twice, at their input and output, which a tokenizer has no use for."""
    dove = built("dove-base", Dove)
    assert isinstance(dove, Dove)
    table = load_experiment("table6").paper["values"]["pythia"]
    words = 2 * table["vocabulary"] * table["embedding_dim"]
    assert parameters(dove.generator.transformer) + words == pytest.approx(table["parameters"], rel=0.01)
    rows = {row[0]: row for row in load_experiment("anchors").paper["rows"]}
    assert parameters(dove) + 2 * words == pytest.approx(rows["dove"][-1], rel=0.005)
    assert dove.config.vqgan.codebook_size == load_experiment("table6").paper["values"]["vqgan"]["codebook_size"]
    assert load_experiment("table6").paper["values"]["vqgan"]["patch_size"] * dove.config.vqgan.grid_size == 256


def test_queries_at_the_paper_s_size_have_pythia_s_words() -> None:
    config: Any = PRESETS["qdove-base"].model
    table = load_experiment("table6").paper["values"]["pythia"]
    assert (config.query.vocab_size, config.generator.hidden_size) == (table["vocabulary"], table["embedding_dim"])
