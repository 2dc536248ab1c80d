"""TiTok against the published code, and its own promises."""

import pytest
import torch
from golden_rule import coarse, filled_weights, layouts, reference_images, references, relative_error
from safetensors.torch import save_file

from dove.baselines.adapter import build_loaded
from dove.baselines.config import TITOKS, MaskgitVQGANConfig, TiTokConfig, TransformerConfig
from dove.baselines.titok import TiTok, load_published, make_titok
from dove.errors import UserError
from dove.protocol import Layered
from dove.tokens import Tokens

PUBLISHED = ("s128", "b64", "l32")
SMALL = {
    "transformer": TransformerConfig(width=32, num_layers=2, num_heads=2),
    "num_tokens": 4,
    "image_size": 16,
    "patch_size": 4,
    "codebook_size": 32,
}
SMALL_VQGAN = MaskgitVQGANConfig(
    image_size=16,
    hidden_channels=8,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    latent_channels=8,
    codebook_size=16,
    norm_groups=4,
)
TWO_STAGES = TiTokConfig(**SMALL, vqgan=SMALL_VQGAN)
ONE_STAGE = TiTokConfig(**SMALL, head="pixels", projection="per-token")


@pytest.fixture(params=[TWO_STAGES, ONE_STAGE], ids=["two stages", "one stage"])
def titok(request) -> TiTok:
    torch.manual_seed(0)
    return make_titok(request.param).eval()


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_have_the_published_names_and_shapes(model):
    with torch.device("meta"):
        ours = make_titok(TITOKS[f"titok-{model}"]).state_dict()
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == layouts("titok")[model]["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("model", PUBLISHED)
@torch.no_grad()
def test_outputs_are_those_of_the_published_code(model):
    titok = build_loaded(
        lambda: make_titok(TITOKS[f"titok-{model}"]), filled_weights(layouts("titok")[model]["state_dict"])
    )
    reference = references("titok", model)
    latents = titok.encoder(reference_images(), titok.latent_tokens)
    assert relative_error(latents, reference["z"].squeeze(2).transpose(1, 2)) < 1e-3
    quantized = titok.quantize(latents)
    assert (quantized.ids == reference["ids"]).float().mean() >= 0.99
    values = titok.quantize.lookup(reference["ids"])
    assert relative_error(values, reference["zq"].squeeze(2).transpose(1, 2)) < 1e-3
    pixels = (titok.reconstruct_from(values) + 1) / 2
    assert relative_error(coarse(pixels), reference["recon_8x"]) < 1e-3


def test_tokens_are_codebook_entries_and_give_back_an_image(titok, images):
    tokens = titok.encode(images)
    assert tokens.values.shape == (3, 4, 12)
    assert tokens.lengths.tolist() == [4, 4, 4]
    torch.testing.assert_close(titok.quantize(tokens.values).values, tokens.values)
    decoded = titok.decode(tokens)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1


def test_alone_and_in_a_batch_agree(titok, images):
    tokens = titok.encode(images)
    torch.testing.assert_close(titok.encode(images[1:2]).values, tokens[1].values)
    torch.testing.assert_close(titok.decode(tokens[1]), titok.decode(tokens)[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("projection", "alone"), [("per-token", True), ("scrambled", False)])
def test_only_the_later_projection_keeps_tokens_apart(projection, alone):
    encoder = make_titok(TiTokConfig(**SMALL, head="pixels", projection=projection)).encoder
    hidden = torch.randn(1, 4, 32, requires_grad=True)
    encoder.project(hidden)[0, 2].sum().backward()
    assert hidden.grad is not None
    reached = hidden.grad[0].abs().amax(1).nonzero().flatten().tolist()
    assert (reached == [2]) is alone


def test_gradients_reach_every_parameter(titok, images):
    quantized = titok.quantized_images(images)
    (titok.reconstruct_from(quantized.values).square().mean() + quantized.loss).backward()
    without = [name for name, parameter in titok.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("num_tokens", [3, "max 2", 5])
def test_other_numbers_of_tokens_are_refused(titok, images, num_tokens):
    with pytest.raises(UserError, match="num_tokens"):
        titok.encode(images, num_tokens)


def test_tokens_of_another_model_are_refused(titok):
    with pytest.raises(UserError, match=r"takes \(B, 4, 12\)"):
        titok.decode(Tokens(torch.zeros(1, 4, 8), torch.tensor([4])))
    with pytest.raises(UserError, match="always uses 4 tokens"):
        titok.decode(Tokens(torch.zeros(1, 4, 12), torch.tensor([3])))


def test_a_checkpoint_file_is_read_and_a_wrong_one_named(tmp_path, images, monkeypatch):
    monkeypatch.setitem(TITOKS, "titok-s128", ONE_STAGE)
    torch.manual_seed(0)
    model = make_titok(ONE_STAGE).eval()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "whole.safetensors")
    loaded = load_published("titok-s128", tmp_path / "whole.safetensors")
    assert torch.equal(loaded.encode(images).values, model.encode(images).values)
    del weights["latent_tokens"]
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match="1 missing: latent_tokens"):
        load_published("titok-s128", tmp_path / "part.safetensors")


def test_hidden_layers_are_what_an_encoding_passes_through(titok):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    seen: list[torch.Tensor] = []
    for block in titok.encoder.transformer:
        block.register_forward_hook(lambda _, __, output: seen.append(output[:, 1:17]))
    titok.encode(images)
    encoded = torch.stack(seen)
    assert isinstance(titok, Layered)
    assert encoded.shape == (titok.num_layers, 2, titok.grid_size**2, 32)
    assert torch.equal(titok.hidden_layers(images), encoded)
    assert titok.latents(images).shape == encoded.shape[1:]
