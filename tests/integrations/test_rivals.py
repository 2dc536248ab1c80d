"""Published weights of other systems become folders that every evaluation takes."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import save_file

from dove.baselines.config import TITOKS, TiTokConfig, TransformerConfig
from dove.baselines.titok import make_titok
from dove.cli import main
from dove.registry import load_tokenizer


def test_a_titok_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: torch.Tensor) -> None:
    small = TiTokConfig(
        transformer=TransformerConfig(width=32, num_layers=1, num_heads=2),
        num_tokens=8,
        image_size=16,
        patch_size=4,
        codebook_size=32,
        projection="per-token",
        head="pixels",
    )
    monkeypatch.setitem(TITOKS, "titok-s128", small)
    torch.manual_seed(0)
    model = make_titok(small).eval()
    save_file(dict(model.state_dict()), tmp_path / "published.safetensors")
    flags = ["--kind", "titok-s128", "--output", str(tmp_path / "folder")]
    assert main(["convert", str(tmp_path / "published.safetensors"), *flags]) == 0
    loaded = load_tokenizer(tmp_path / "folder")
    assert torch.equal(loaded.encode(images, 8).values, model.encode(images, 8).values)


def test_a_vqgan_in_diffusers_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 16), "latent_channels": 8, "num_vq_embeddings": 32, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    VQModel(**sizes, **blocks, layers_per_block=1, mid_block_add_attention=False).save_pretrained(tmp_path / "vqmodel")
    flags = ["--kind", "vqmodel", "--output", str(tmp_path / "folder")]
    assert main(["convert", str(tmp_path / "vqmodel"), *flags]) == 0
    tokenizer = load_tokenizer(tmp_path / "folder")
    assert tokenizer.image_size == 32
    assert tokenizer.encode(torch.zeros(1, 3, 32, 32), 256).values.shape == (1, 256, 8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--kind", "titok-x"], "no kind 'titok-x' of weights; there are dove, vqmodel"),
        (["--kind", "vqmodel", "--prefix", "ema."], "leave them out"),
    ],
)
def test_what_does_not_fit_is_said(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tmp_path), "--output", str(tmp_path / "folder"), *flags]) == 2
    assert message in capsys.readouterr().err
