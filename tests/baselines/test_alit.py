"""ALIT against the published code, and its own promises."""

import re
from dataclasses import replace

import pytest
import torch
from golden_rule import coarse, filled_weights, layouts, reference_images, references, relative_error

from dove.baselines.adapter import build_loaded
from dove.baselines.alit import ALIT, from_published_name, load_published
from dove.baselines.config import ALITS, ALITConfig, MaskgitVQGANConfig, TransformerConfig
from dove.errors import UserError
from dove.protocol import Layered
from dove.tokens import Tokens

PUBLISHED = {"alit_tiny": "alit-512", "alit_small": "alit-small"}
SMALL = ALITConfig(
    transformer=TransformerConfig(width=32, num_layers=2, num_heads=2),
    tokens_per_rollout=2,
    num_rollouts=4,
    patch_size=4,
    codebook_size=32,
    vqgan=MaskgitVQGANConfig(
        image_size=16,
        hidden_channels=8,
        channel_mult=(1, 2, 2),
        num_res_blocks=1,
        latent_channels=8,
        codebook_size=16,
        norm_groups=4,
    ),
)


@pytest.fixture
def alit() -> ALIT:
    torch.manual_seed(0)
    return ALIT(SMALL).eval()


def published_weights(model: str) -> dict[str, torch.Tensor]:
    """The made-up weights that the references were computed with, under our names."""
    weights = filled_weights(layouts("alit")[model]["state_dict"])
    return {from_published_name(name): tensor for name, tensor in weights.items()}


def published_name(name: str) -> str:
    """The inverse of ``from_published_name``."""
    if not name.startswith("base_tokenizer."):
        return name
    name = name.replace("base_tokenizer.", "base_tokenizer.vqgan.", 1).replace(".upsample_conv.", ".upsample.conv.")
    return re.sub(r"\.mid\.(\d+)\.", lambda match: f".mid.block_{int(match[1]) + 1}.", name)


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_have_the_published_names_and_shapes(model):
    with torch.device("meta"):
        ours = ALIT(ALITS[PUBLISHED[model]]).state_dict()
    layout = layouts("alit")[model]["state_dict"]
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == {
        from_published_name(name): shape for name, shape in layout.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", ["alit_tiny", pytest.param("alit_small", marks=pytest.mark.nightly)])
@torch.no_grad()
def test_outputs_are_those_of_the_published_code(model):
    config = replace(ALITS[PUBLISHED[model]], halting_threshold=None)
    alit = build_loaded(lambda: ALIT(config), published_weights(model))
    reference = references("alit", model)
    for index, roll_out in enumerate(alit.roll_outs(reference_images() * 2 - 1)):
        if f"ids_{index}" not in reference:
            continue
        assert relative_error(roll_out.latents, reference[f"latents_{index}"]) < 1e-3
        assert (roll_out.ids == reference[f"ids_{index}"]).float().mean() >= 0.99
        assert (roll_out.logits.argmax(-1) == reference[f"logits_argmax_{index}"]).float().mean() >= 0.99
        pixels = (alit.reconstruct_from(roll_out.logits) + 1) / 2
        assert relative_error(coarse(pixels), reference[f"recon_8x_{index}"]) < 1e-3


@pytest.mark.parametrize("num_tokens", [2, 4, 8])
@torch.no_grad()
def test_decoding_tokens_gives_the_images_of_their_roll_out(alit, images, num_tokens):
    tokens = alit.encode(images, num_tokens)
    assert tokens.values.shape == (3, 8, 12)
    assert tokens.lengths.tolist() == [num_tokens] * 3
    *_, last = alit.roll_outs(images, num_tokens // 2)
    expected = alit.reconstruct_from(last.logits).clamp(-1, 1)
    torch.testing.assert_close(alit.decode(tokens), expected, atol=1e-5, rtol=0)


def test_several_requests_at_once_are_each_alone(alit, images):
    for request, tokens in zip([8, 2, "auto"], alit.encode_each(images, [8, 2, "auto"]), strict=True):
        torch.testing.assert_close(tokens.values, alit.encode(images, request).values)


@torch.no_grad()
def test_auto_stops_every_image_at_the_first_roll_out_below_the_threshold(alit, images):
    images = images * torch.tensor([0.1, 1.0, 0.4])[:, None, None, None]
    errors = torch.stack(
        [(alit.decode(alit.encode(images, length)) - images).abs().mean((1, 2, 3)) / 2 for length in (2, 4, 6)]
    )
    threshold = errors.flatten().median().item() + 1e-6
    reached = (errors < threshold).T
    assert reached.any()
    assert not reached.any(1).all()
    expected = [row.int().argmax().item() * 2 + 2 if row.any() else 8 for row in reached]
    bias = threshold - SMALL.error_threshold
    tokens = alit.encode(images, f"auto{bias:+.7f}")
    assert tokens.lengths.tolist() == expected
    for image, length in enumerate(expected):
        alone = alit.encode(images[image : image + 1], length)
        torch.testing.assert_close(tokens[image].values, alone.values)


def test_images_of_different_lengths_decode_as_alone(alit, images):
    batches = [alit.encode(images[image : image + 1], length) for image, length in enumerate([2, 8, 4])]
    together = alit.decode(Tokens.cat(batches))
    alone = torch.cat([alit.decode(batch) for batch in batches])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("garbage", [7.0, float("nan")])
def test_nothing_after_the_cut_reaches_the_decoder(alit, images, garbage):
    tokens = alit.encode(images, 4)
    spoiled = Tokens(torch.where(tokens.mask[..., None], tokens.values, garbage), tokens.lengths)
    assert torch.equal(alit.decode(tokens), alit.decode(spoiled))


@torch.no_grad()
def test_halting_masks_what_the_decoder_is_sure_of(alit, images):
    plain = ALIT(replace(SMALL, halting_threshold=None)).eval()
    all_halt = ALIT(replace(SMALL, halting_threshold=0.0)).eval()
    for model in (plain, all_halt):
        model.load_state_dict(alit.state_dict())
    latents = [[out.latents for out in model.roll_outs(images)] for model in (plain, all_halt)]
    torch.testing.assert_close(latents[0][0], latents[1][0])
    assert not torch.allclose(latents[0][1], latents[1][1], atol=1e-4)
    hidden, codes = torch.randn(3, 19, 32), torch.zeros(3, 16, dtype=torch.long)
    logits = torch.zeros(3, 16, 16)
    logits[0, 5, 0] = 9.0
    roll_out = replace(next(alit.roll_outs(images)), codes=codes, decode=lambda *_: logits)
    changed = (alit._halt(hidden, roll_out, 0.5) != hidden).any(2).nonzero().tolist()
    assert changed == [[0, 6]]


@pytest.mark.parametrize(("threshold", "calls"), [(None, 0), (0.5, SMALL.num_rollouts - 1)])
def test_the_decoder_runs_only_where_halting_asks_for_it(images, threshold, calls):
    model = ALIT(replace(SMALL, halting_threshold=threshold)).eval()
    ran = []
    model.decoder.register_forward_hook(lambda *_: ran.append(1))
    model.encode(images, model.max_tokens)
    assert len(ran) == calls


def test_outside_training_nothing_is_drawn(alit, images):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = alit.encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alit.encode(images).values, first.values)


def test_gradients_reach_every_parameter_but_the_mask(alit, images):
    loss = sum(out.loss + out.logits.logsumexp(-1).mean() for out in alit.roll_outs(images))
    *_, last = alit.roll_outs(images)
    (loss + alit.reconstruct_from(last.logits).square().mean()).backward()
    without = {name for name, parameter in alit.named_parameters() if parameter.grad is None}
    # whether anything halts, and so needs the mask token, depends on the images
    assert without <= {"encoder_mask_token"}


@pytest.mark.parametrize("num_tokens", [1, 3, "max 1", 10])
def test_numbers_of_tokens_between_roll_outs_are_refused(alit, images, num_tokens):
    with pytest.raises(UserError, match="num_tokens"):
        alit.encode(images, num_tokens)
    tokens = alit.encode(images, 4)
    with pytest.raises(UserError, match=r"one of 2, 4, 6, 8"):
        alit.decode(tokens, 3)


def test_a_limit_between_roll_outs_is_kept(alit, images):
    assert alit.encode(images, "max 5").lengths.max() <= 4


def test_a_published_training_state_gives_its_averaged_weights(tmp_path, images, monkeypatch):
    monkeypatch.setitem(ALITS, "alit-512", SMALL)
    torch.manual_seed(0)
    model = ALIT(SMALL).eval()
    averaged = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    state = {
        "model": {name: torch.zeros_like(tensor) for name, tensor in averaged.items()},
        "ema": averaged | {"gan_losses.0.discriminator.weight": torch.zeros(1)},
        "epoch": 3,
    }
    torch.save(state, tmp_path / "checkpoint-last.pth")
    loaded = load_published("alit-512", tmp_path / "checkpoint-last.pth")
    assert torch.equal(loaded.encode(images, 4).values, model.encode(images, 4).values)
    with pytest.raises(UserError, match="don't fit"):
        load_published("alit-small", tmp_path / "checkpoint-last.pth")


def test_hidden_layers_are_those_of_the_last_roll_out(images):
    torch.manual_seed(0)
    alit = ALIT(replace(SMALL, halting_threshold=None)).eval()
    seen: list[torch.Tensor] = []
    for block in alit.encoder.transformer:
        block.register_forward_hook(lambda _, __, output: seen.append(output[:, 1:17]))
    alit.encode(images, alit.max_tokens)
    assert isinstance(alit, Layered)
    assert len(seen) == alit.config.num_rollouts * alit.num_layers
    assert torch.equal(alit.hidden_layers(images), torch.stack(seen[-alit.num_layers :]))
    assert alit.latents(images).shape == (len(images), alit.grid_size**2, 32)
