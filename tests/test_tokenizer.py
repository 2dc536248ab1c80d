import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from dove.config import VQGANConfig
from dove.errors import UserError
from dove.models.transformer import Transformer
from dove.models.vqgan import VQGAN
from dove.registry import load_tokenizer
from dove.tokenizer import Dove
from dove.tokens import Tokens

SIDE, CELLS, CAPACITY = 4, 16, 16


def silence_attention(transformer: Transformer) -> None:
    """Make every position depend on its own input alone."""
    for layer in transformer.layers:
        torch.nn.init.zeros_(layer.attention.dense.weight)
        torch.nn.init.zeros_(layer.attention.dense.bias)


def decode_whole(model: Dove, values: torch.Tensor) -> torch.Tensor:
    """Latents that the token decoder makes of whole sequences."""
    return model.token_decoder(
        Tokens(values, torch.full((len(values),), CAPACITY)), torch.zeros(len(values), 3, 16, 16)
    )


def changed_rows(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Sequence positions, in (B, S, D), at which anything differs."""
    return (before - after).abs().amax((0, 2)).gt(1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize("eos_head", ["binary", "vocab"])
@pytest.mark.parametrize("num_tokens", [1, 5, CAPACITY])
def test_a_prefix_of_the_full_forward_is_the_short_forward(tiny_config, images, eos_head, num_tokens):
    model = Dove(replace(tiny_config, eos_head=eos_head)).eval()
    full, short = model.generate(images), model.generate(images, num_tokens)
    torch.testing.assert_close(full.values[:, :num_tokens], short.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(full.eos.margin[:, :num_tokens], short.eos.margin, atol=1e-5, rtol=0)


def test_encoding_to_k_is_cutting_the_full_encoding_at_k(tiny_dove, images):
    full = tiny_dove.encode(images, CAPACITY)
    short = tiny_dove.encode(images, 5)
    torch.testing.assert_close(short.values, full.truncate(5).values, atol=1e-5, rtol=0)
    assert short.lengths.tolist() == [5, 5, 5]


@pytest.mark.parametrize("garbage", [7.0, float("inf"), float("nan")])
def test_nothing_after_the_cut_reaches_the_decoder(tiny_dove, images, garbage):
    tokens = tiny_dove.encode(images, "auto-100")
    tokens = Tokens.cut(tokens.values, torch.tensor([1, 6, CAPACITY]))
    spoiled = Tokens(torch.where(tokens.mask[..., None], tokens.values, garbage), tokens.lengths)
    assert torch.equal(tiny_dove.decode(tokens), tiny_dove.decode(spoiled))


def test_what_is_kept_reaches_the_decoder(tiny_dove, images):
    tokens = tiny_dove.encode(images, 6)
    assert not torch.equal(tiny_dove.decode(tokens), tiny_dove.decode(tokens, num_tokens=5))
    other = Tokens(tokens.values.clone(), tokens.lengths)
    other.values[:, 5] += 1
    assert not torch.equal(tiny_dove.decode(tokens), tiny_dove.decode(other))


def test_auto_stops_where_the_eos_head_says(tiny_dove, images):
    margin = tiny_dove.generate(images).eos.margin
    bias = -margin[:, 1:].amax(1).min().item() + 1e-4  # just enough for one EOS in each image
    tokens = tiny_dove.encode(images, f"auto{bias:+.6f}")
    for row, length in zip(margin + bias, tokens.lengths.tolist(), strict=True):
        assert length == CAPACITY or row[length] > 0
        assert (row[1:length] <= 0).all()


def test_a_batch_gives_what_each_image_gives_alone(tiny_dove, images):
    together = tiny_dove.encode(images, "auto")
    alone = Tokens.cat([tiny_dove.encode(image[None], "auto") for image in images])
    assert torch.equal(together.lengths, alone.lengths)
    torch.testing.assert_close(together.values, alone.values, atol=1e-5, rtol=0)
    decoded = torch.cat([tiny_dove.decode(tokens) for tokens in together])
    torch.testing.assert_close(tiny_dove.decode(together), decoded, atol=1e-5, rtol=0)


def test_vqgan_positions_are_row_major_cells(tiny_config, images):
    vqgan = VQGAN(tiny_config.vqgan).eval()
    with torch.no_grad():
        grid, latents = vqgan.quant_conv(vqgan.encoder(pixel_unshuffle(images, 2))), vqgan.encode(images)
    assert grid.shape == (3, 8, SIDE, SIDE)
    for y in range(SIDE):
        for x in range(SIDE):
            assert torch.equal(latents[:, y * SIDE + x], grid[:, :, y, x])


def make_local_vqgan(config: VQGANConfig) -> VQGAN:
    """VQGAN in which every pixel depends on its own cell alone: the middle of each kernel, no group statistics."""
    vqgan = VQGAN(config)
    for module in vqgan.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            middle = module.weight.data[..., 1, 1].clone()
            module.weight.data.zero_()[..., 1, 1] = middle
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    return vqgan.eval()


@pytest.mark.parametrize("cell", [0, 3, 6, 12, 15])
def test_a_cell_of_the_image_is_that_latent(tiny_config, images, cell):
    vqgan = make_local_vqgan(tiny_config.vqgan)
    row, column = divmod(cell, SIDE)
    other = images.clone()
    other[..., row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] *= -1
    with torch.no_grad():
        assert changed_rows(vqgan.encode(images), vqgan.encode(other)) == [cell]


@pytest.mark.parametrize("cell", [0, 3, 6, 12, 15])
def test_a_latent_is_painted_into_its_cell(tiny_config, cell):
    vqgan = make_local_vqgan(tiny_config.vqgan)
    latents = torch.randn(3, CELLS, 8)
    other = latents.clone()
    other[:, cell] *= -1
    with torch.no_grad():
        change = (vqgan.decode(other) - vqgan.decode(latents)).abs().amax((0, 1))
    by_cell = change.unflatten(1, (SIDE, 4)).unflatten(0, (SIDE, 4)).amax((1, 3)).flatten()
    assert by_cell.gt(1e-6).nonzero().flatten().tolist() == [cell]


@pytest.mark.parametrize("position", [0, 3, 12, 15])
def test_token_i_alone_feeds_grid_position_i(tiny_dove, position):
    silence_attention(tiny_dove.token_decoder.transformer)
    values = torch.randn(2, CAPACITY, 24)
    other = values.clone()
    other[:, position] += 1
    assert changed_rows(decode_whole(tiny_dove, values), decode_whole(tiny_dove, other)) == [position]


def test_zeroed_positions_know_which_cell_they_are(tiny_dove):
    latents = decode_whole(tiny_dove, torch.zeros(1, CAPACITY, 24))[0]
    assert torch.pdist(latents).min() > 1e-3


def test_every_token_reaches_every_grid_position(tiny_dove):
    values = torch.randn(1, CAPACITY, 24)
    other = values.clone()
    other[:, -1] += 1
    assert changed_rows(decode_whole(tiny_dove, values), decode_whole(tiny_dove, other)) == list(range(CELLS))


@pytest.mark.parametrize("position", [0, 3, 12, 15])
def test_timestamp_i_alone_makes_token_i(tiny_dove, images, position):
    silence_attention(tiny_dove.generator.transformer)
    before = tiny_dove.generate(images)
    tiny_dove.generator.timestamps[position] *= -1
    after = tiny_dove.generate(images)
    assert changed_rows(before.values, after.values) == [position]
    assert changed_rows(before.eos.margin[..., None], after.eos.margin[..., None]) == [position]


def test_a_token_sees_all_latents_and_no_later_timestamp(tiny_dove, images):
    latents, code = tiny_dove.vqgan.encode(images), tiny_dove.prior.encode(images)

    def values(latents: torch.Tensor) -> torch.Tensor:
        return tiny_dove.generator(tiny_dove.generator.embed(latents), code).values

    before = values(latents)
    last = latents.clone()
    last[:, -1] += 1
    assert changed_rows(before, values(last)) == list(range(CAPACITY))
    tiny_dove.generator.timestamps[6] *= -1
    assert changed_rows(before, values(latents)) == list(range(6, CAPACITY))


def test_stages_are_differentiable_up_to_the_cut(tiny_dove, images):
    values = tiny_dove.generate(images).values
    values.retain_grad()
    tokens = Tokens.cut(values, torch.tensor([2, 5, 9]))
    tiny_dove.reconstruct_from(tokens).square().mean().backward()
    assert values.grad is not None
    assert torch.equal(values.grad.abs().amax(-1) > 0, tokens.mask)
    assert tiny_dove.generator.latent_projection.weight.grad.abs().sum() > 0


def test_tokens_can_be_trained_on(tiny_dove, images):
    probe = torch.nn.Linear(24, 1)
    probe(tiny_dove.encode(images, 4).values).sum().backward()
    assert probe.weight.grad is not None


def test_decoded_pixels_stay_in_range(tiny_dove, images):
    decoded = tiny_dove.decode(Tokens(torch.full((1, CAPACITY, 24), 1e4), torch.tensor([CAPACITY])))
    assert decoded.shape == (1, 3, 16, 16)
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: (x * 127).to(torch.uint8), r"images are torch.uint8; pass floats in \[-1, 1\]"),
        (lambda x: x * 255, r"images reach from -2.* pass pixels in \[-1, 1\]"),
        (lambda x: x * float("nan"), "images reach from nan"),
        (lambda x: x[0], r"images are \(3, 16, 16\); this model takes \(B, 3, 16, 16\)"),
        (lambda x: x[:, :1], r"images are \(3, 1, 16, 16\)"),
        (lambda x: x[..., :8], r"images are \(3, 3, 16, 8\)"),
        (lambda x: x.repeat(1, 1, 2, 2), r"images are \(3, 3, 32, 32\)"),
        (lambda x: x[:0], "no image given"),
    ],
)
def test_encode_names_what_does_not_fit(tiny_dove, images, spoil, message):
    with pytest.raises(UserError, match=message):
        tiny_dove.encode(spoil(images))


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((1, 15, 24), [1], r"tokens are \(1, 15, 24\); this model takes \(B, 16, 24\)"),
        ((1, 24, 16), [1], r"tokens are \(1, 24, 16\)"),
        ((2, 16, 24), [0, 3], r"token lengths \[0, 3\] are not all from 1 to 16"),
        ((1, 16, 24), [17], r"token lengths \[17\]"),
    ],
)
def test_decode_names_what_does_not_fit(tiny_dove, shape, lengths, message):
    with pytest.raises(UserError, match=message):
        tiny_dove.decode(Tokens(torch.zeros(shape), torch.tensor(lengths)))


@pytest.mark.parametrize("name", ["dove-tiny", "cosines", "titok-32-bench"])
def test_kept_tokens_that_are_not_finite_are_refused(name):
    model = load_tokenizer(name)
    tokens = model.encode(torch.zeros(2, 3, model.image_size, model.image_size), model.max_tokens)
    tokens.values[1, 3, 2] = float("nan")
    with pytest.raises(UserError, match="tokens hold NaN or infinity"):
        model.decode(tokens)


def test_arguments_of_other_types_are_named():
    code = (  # in a process of its own, without the type checks of these tests
        "import numpy, torch; from dove import Dove, ImageProcessor, Tokens, UserError\n"
        "assert ImageProcessor(numpy.int64(8)).image_size == 8\n"
        "from dove.lengths import Auto, Budget, Fixed, PsnrAtLeast\n"
        "model = Dove.from_pretrained('dove-tiny'); values = torch.zeros(1, 64, 256)\n"
        "one = Tokens(values, torch.tensor([1])); images = torch.zeros(1, 3, 64, 64)\n"
        "def at(policy): return lambda argument: model.encode(images, policy(argument))\n"
        "two = torch.cat([values, values + 1]); short = torch.tensor([1, 3])\n"
        "narrow = model.decode(Tokens(two, short.to(torch.uint8)))\n"
        "assert torch.equal(narrow, model.decode(Tokens(two, short)))\n"
        "calls = [(model.encode, 'photo.jpg'), (model.encode, values.numpy()), (model.decode, values),\n"
        "         (model.decode, Tokens(values, torch.tensor([2.0]))), (ImageProcessor(8).to_pil, 'photo.jpg'),\n"
        "         (ImageProcessor(8).to_pil, torch.zeros(3, 8, 8, dtype=torch.uint8)), (ImageProcessor, '64'),\n"
        "         (model.decode, Tokens(values, [1])), (model.decode, Tokens(values, torch.tensor([True]))),\n"
        "         (model.decode, Tokens(values, torch.tensor([1, 1]))), (model.decode, Tokens(values, torch.tensor(1))),\n"
        "         (model.decode, Tokens(values[:0], torch.zeros(0).long())), (Tokens.cat, []),\n"
        "         (one.truncate, 2.5), (one.truncate, '2'), (one.truncate, True), (Dove.from_pretrained, None),\n"
        "         (Dove.from_pretrained, 'x' * 5000), (lambda text: model.encode_each(images, text), '16'),\n"
        "         (at(Fixed), '3'), (at(Fixed), 2.5), (at(Fixed), True), (at(PsnrAtLeast), '25'), (at(PsnrAtLeast), -5),\n"
        "         (at(Budget), float('nan')), (at(lambda bias: Auto(eos_bias=bias)), float('nan')),\n"
        "         (at(lambda limit: Auto(max_tokens=limit)), 2.5)]\n"
        "for call, argument in calls:\n"
        "    try: call(argument)\n"
        "    except UserError as error: print(str(error).split(';')[0].replace('x' * 5000, 'x'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "images are of type str",
        "images are of type ndarray",
        "tokens are of type Tensor",
        "token lengths are torch.float32",
        "images are str",
        "images are torch.uint8",
        "image_size='64' must be a whole number of pixels, at least 1",
        "the tokens' lengths are of type list",
        "token lengths are torch.bool",
        "token lengths are (2,) for 1 sequences",
        "token lengths are () for 1 sequences",
        "no token sequence given",
        "no tokens given",
        "num_tokens=2.5 is no whole number",
        "num_tokens='2' is no whole number",
        "num_tokens=True is no whole number",
        "checkpoint None is of type NoneType",
        "no checkpoint 'x': no such folder or shipped name (shipped: "
        "alit-bench, cosines, dove-bench, dove-plus-bench, dove-tiny, qdove-tiny, titok-32-bench, vlm-tiny, vqgan-bench) "
        "or hub id (owner/name)",
        "num_tokens='16' is one request",
        "num_tokens='3' is no whole number",
        "num_tokens=2.5 is no whole number",
        "num_tokens=True is no whole number",
        "the quality of psnr>= is '25'",
        "num_tokens='psnr>=-5': the quality must be above 0",
        "the mean of budget is nan",
        "eos_bias of auto is nan",
        "num_tokens=2.5 is no whole number",
    ]


@pytest.mark.parametrize("num_tokens", [0, -1, 17])
def test_decode_checks_the_number_asked_for(tiny_dove, images, num_tokens):
    with pytest.raises(UserError, match=f"num_tokens={num_tokens} is out of range; pass 1 to 16"):
        tiny_dove.decode(tiny_dove.encode(images), num_tokens)


def test_capacity_must_be_the_number_of_grid_positions(tiny_config):
    with pytest.raises(UserError, match="max_tokens=9 differs from the VQGAN's 16 grid positions"):
        Dove(replace(tiny_config, max_tokens=9))
    assert VQGANConfig().grid_size ** 2 == 256


def test_half_precision_models_take_fp32_images(tiny_dove, images):
    tokens = tiny_dove.to(torch.bfloat16).encode(images, 3)
    assert tokens.values.dtype == torch.float32
    assert tiny_dove.decode(tokens).dtype == torch.float32


def test_a_cosine_prior_is_not_cast():
    model = Dove.from_pretrained("dove-tiny").half()
    tokens = Tokens(torch.zeros(1, 64, 256), torch.tensor([1]))
    for use in (lambda: model.encode(torch.zeros(1, 3, 64, 64), 1), lambda: model.decode(tokens)):
        with pytest.raises(UserError, match=r"cast to torch.float16.*dove.optimize"):
            use()


def test_importing_the_package_loads_no_torch():
    code = (
        "import sys, dove; dir(dove); assert not {'torch', 'transformers'} & set(sys.modules); dove.Dove, dove.Tokens"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_round_trip_loads_no_large_library():
    code = (
        "import sys, torch; from dove import Dove; model = Dove.from_pretrained('dove-tiny');"
        "model.decode(model.encode(torch.zeros(1, 3, 64, 64)));"
        "large = {'transformers', 'diffusers', 'accelerate', 'datasets', 'scipy', 'sklearn', 'matplotlib', 'torchvision'};"
        "assert not large & set(sys.modules), large & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_lengths_from_one_encoding_are_those_of_one_encoding_each(tiny_dove, images):
    requests = [3, "auto-100", "max 5", CAPACITY]
    calls = []
    tiny_dove.generator.register_forward_hook(lambda *_: calls.append(1))
    together = tiny_dove.encode_each(images, requests)
    assert len(calls) == 1
    for tokens, request in zip(together, requests, strict=True):
        alone = tiny_dove.encode(images, request)
        torch.testing.assert_close(tokens.values, alone.values, atol=1e-5, rtol=0)
        assert tokens.lengths.tolist() == alone.lengths.tolist()
