"""The token decoder that runs on kept tokens alone."""

from dataclasses import replace

import pytest
import torch

from dove.closed_form import start_from_bands, start_from_patches
from dove.config import DoveConfig
from dove.evaluation.operations import count_operations
from dove.models.token_decoder import KeptBandTokenDecoder, KeptTokenDecoder, make_token_decoder
from dove.tokenizer import Dove
from dove.tokens import Tokens

LENGTHS = torch.tensor([2, 16, 7])


@pytest.fixture(params=["grid", "bands", "cosines"])
def decoder(tiny_config: DoveConfig, request: pytest.FixtureRequest) -> KeptTokenDecoder:
    """One that has left its start, at which nothing is read."""
    torch.manual_seed(0)
    made = make_token_decoder(replace(tiny_config, token_decoder="kept", token_basis=request.param))
    assert isinstance(made, KeptTokenDecoder)
    assert isinstance(made, KeptBandTokenDecoder) == (request.param != "grid")
    torch.nn.init.normal_(made.reader.output.weight)
    return made.eval()


def cut_tokens() -> torch.Tensor:
    values = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(2))
    return Tokens.cut(values, LENGTHS).values


def test_a_batch_of_mixed_lengths_is_each_image_alone(decoder):
    values = cut_tokens()
    together = decoder(values)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], decoder(values[row : row + 1]), atol=1e-5, rtol=1e-4)


def test_every_kept_token_reaches_every_cell(decoder):
    values = cut_tokens()
    before = decoder(values)
    for row, length in enumerate(LENGTHS.tolist()):
        changed = values.clone()
        changed[row, length - 1] += 1
        difference = (decoder(changed) - before).abs().amax(-1)
        assert (difference[row] > 1e-6).all()
        assert difference[[other for other in range(3) if other != row]].max() < 1e-5


def test_operations_grow_with_the_tokens(decoder):
    values = torch.randn(1, 16, 24)
    spent = [count_operations(lambda k=k: decoder(Tokens.cut(values, torch.tensor([k])).values)) for k in (1, 4, 8, 16)]
    steps = [after - before for before, after in zip(spent, spent[1:], strict=False)]
    assert min(steps) > 0
    assert spent[-1] > 3 * spent[0]


def test_a_token_of_zeros_is_no_error(decoder):
    assert decoder(torch.zeros(2, 16, 24)).isfinite().all()


def test_the_start_is_that_of_the_decoder_of_all_positions(tiny_config, images):
    vqgan = replace(tiny_config.vqgan, linear_shortcut=True)
    backbone = replace(tiny_config.generator, hidden_size=24)
    config = replace(
        tiny_config, vqgan=vqgan, generator=backbone, decoder=backbone, token_basis="bands", eos_head="quality"
    )
    rebuilt = []
    for kind in ("all", "kept"):
        torch.manual_seed(0)
        model = Dove(replace(config, token_decoder=kind)).eval()
        sample = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
        start_from_patches(model.vqgan, sample)
        start_from_bands(model, sample)
        rebuilt.append(model.decode(model.encode(images, 6)))
    torch.testing.assert_close(*rebuilt, atol=1e-4, rtol=0)
