"""Plain VQGANs behind the protocol, and the two published layouts of the same network."""

import pytest
import torch
from golden_rule import layouts
from safetensors.torch import save_file

from dove.baselines.config import MaskgitVQGANConfig
from dove.baselines.maskgit_vqgan import from_taming_name
from dove.baselines.vqgan import MaskgitTokenizer, VQGANTokenizer, load_published
from dove.checkpoint import save_checkpoint
from dove.errors import UserError
from dove.models.vqgan import VQGAN


@pytest.fixture(params=["own", "maskgit"])
def tokenizer(request, tiny_config):
    torch.manual_seed(0)
    if request.param == "own":
        return VQGANTokenizer(VQGAN(tiny_config.vqgan)).eval()
    config = MaskgitVQGANConfig(
        image_size=16, hidden_channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, latent_channels=8, norm_groups=4
    )
    return MaskgitTokenizer(config).eval()


@torch.no_grad()
def test_tokens_are_the_whole_grid_of_codes(tokenizer, images):
    tokens = tokenizer.encode(images)
    side = int(tokenizer.max_tokens**0.5)
    assert side**2 == tokenizer.max_tokens
    assert tokens.values.shape == (3, side**2, tokenizer.token_dim)
    assert tokens.lengths.tolist() == [side**2] * 3
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1
    torch.testing.assert_close(tokenizer.encode(images[1:2], side**2).values, tokens[1].values)


@torch.no_grad()
def test_tokens_are_in_row_major_order():
    config = MaskgitVQGANConfig(
        image_size=64, hidden_channels=8, channel_mult=(1, 1, 1), num_res_blocks=1, latent_channels=8, norm_groups=4
    )
    torch.manual_seed(0)
    tokenizer = MaskgitTokenizer(config).eval()
    values = torch.randn(1, 256, 8, generator=torch.Generator().manual_seed(0))
    other = values.clone()
    other[0, 2 * 16 + 13] += 5
    # group norms spread a little everywhere: the largest change is near the token
    change = (tokenizer.reconstruct_from(other) - tokenizer.reconstruct_from(values)).abs().sum(1)[0]
    cells = torch.nn.functional.avg_pool2d(change[None], 4)[0]
    row, column = divmod(int(cells.argmax()), 16)
    assert abs(row - 2) <= 2
    assert abs(column - 13) <= 2


def test_a_vqgan_stage_is_loaded(tmp_path, tiny_config, images):
    vqgan = VQGAN(tiny_config.vqgan)
    save_checkpoint(tmp_path / "vqgan", tiny_config.vqgan, vqgan.state_dict())
    loaded = VQGANTokenizer.from_pretrained(tmp_path / "vqgan")
    assert torch.equal(loaded.encode(images).values, VQGANTokenizer(vqgan).eval().encode(images).values)


def test_both_published_layouts_name_the_same_parameters():
    with torch.device("meta"):
        ours = {name: list(t.shape) for name, t in MaskgitTokenizer(MaskgitVQGANConfig()).vqgan.state_dict().items()}
    prefix = "base_tokenizer.vqgan."
    taming = {
        from_taming_name(name.removeprefix(prefix)): shape
        for name, shape in layouts("alit")["alit_tiny"]["state_dict"].items()
        if name.startswith(prefix)
    }
    assert taming == ours
    titok = layouts("titok")["s128"]["state_dict"]
    decoder = {name.removeprefix("pixel_"): shape for name, shape in titok.items() if name.startswith("pixel_decoder.")}
    assert decoder == {name: shape for name, shape in ours.items() if name.startswith("decoder.")}


def test_a_file_of_another_model_is_named(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="don't fit"):
        load_published("taming-vqgan", tmp_path / "other.safetensors")
