import json
from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig

from dove.errors import UserError
from dove.models.pretrained import AMUSED, PYTHIA, import_backbones, import_vqgan
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove

VOCABULARY = 40


def from_pythia(config, *, backbone=PYTHIA, vqgan=AMUSED) -> Dove:
    model = Dove(config)
    if backbone is not None:
        import_backbones(model, backbone)
    if vqgan is not None:
        assert isinstance(model.vqgan, VQGAN)
        import_vqgan(model.vqgan, vqgan)
    return model


def neox_config(**changes) -> GPTNeoXConfig:
    """The language model of which ``tiny_config`` has the backbones."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "rotary_pct": 0.25,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return GPTNeoXConfig(**{**settings, **changes})


@pytest.fixture
def language_model() -> GPTNeoXForCausalLM:
    torch.manual_seed(3)
    model = GPTNeoXForCausalLM(neox_config()).eval()
    for parameter in model.parameters():  # biases and norms are drawn as 0 and 1, which would hide a swap
        parameter.data += torch.randn_like(parameter) * 0.1
    return model


@pytest.fixture
def vq_model() -> VQModel:
    torch.manual_seed(4)
    return VQModel(
        in_channels=12,
        out_channels=12,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=8,
        num_vq_embeddings=32,
        norm_num_groups=4,
        mid_block_add_attention=False,
    ).eval()


@pytest.fixture
def pythia(language_model, tmp_path):
    language_model.save_pretrained(tmp_path / "pythia")
    return tmp_path / "pythia"


@pytest.fixture
def amused(vq_model, tmp_path):
    vq_model.save_pretrained(tmp_path / "amused")
    return tmp_path / "amused"


def test_the_generator_backbone_is_transformers_own_model(tiny_config, language_model, pythia):
    model = from_pythia(tiny_config, backbone=pythia, vqgan=None).eval()
    embeddings = torch.randn(2, 9, 32)
    with torch.no_grad():
        expected = language_model.gpt_neox(inputs_embeds=embeddings).last_hidden_state
        causal = torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()
        found = model.generator.transformer(embeddings, causal)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_the_decoder_backbone_is_it_without_the_causal_mask(tiny_config, language_model, pythia):
    model = from_pythia(tiny_config, backbone=pythia, vqgan=None).eval()
    embeddings = torch.randn(2, 9, 32)
    language_model.set_attn_implementation("eager")
    with torch.no_grad():
        nothing_hidden = torch.zeros(2, 1, 9, 9)  # eager attention adds its mask
        expected = language_model.gpt_neox(inputs_embeds=embeddings, attention_mask=nothing_hidden).last_hidden_state
        found = model.token_decoder.transformer(embeddings)
        causal = model.generator.transformer(embeddings, torch.ones(1, 1, 9, 9, dtype=torch.bool).tril())
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert (found - causal).abs().max() > 1e-2


def test_the_vocabulary_head_is_the_output_layer(tiny_config, language_model, pythia):
    config = replace(tiny_config, eos_head="vocab", vocab_size=VOCABULARY, eos_token_id=7)
    model = from_pythia(config, backbone=pythia, vqgan=None).eval()
    hidden = torch.randn(2, 5, 32)
    with torch.no_grad():
        logits = language_model.get_output_embeddings()(hidden)
        torch.testing.assert_close(
            model.generator.eos_head(hidden, torch.zeros(2, 5)).probability, logits.softmax(-1)[..., 7]
        )


def test_the_image_ends_are_diffusers_own_model(tiny_config, vq_model, amused, images):
    model = from_pythia(tiny_config, backbone=None, vqgan=amused).eval()
    patches = torch.nn.functional.pixel_unshuffle(images, 2)
    with torch.no_grad():
        grid = vq_model.encode(patches).latents
        torch.testing.assert_close(model.vqgan.encode(images), grid.flatten(2).transpose(1, 2), atol=1e-6, rtol=0)
        expected = vq_model.decode(grid, force_not_quantize=True).sample
        found = model.vqgan.decode(model.vqgan.encode(images))
    torch.testing.assert_close(found, torch.nn.functional.pixel_shuffle(expected, 2), atol=1e-6, rtol=0)


def test_pythias_own_config_file_is_understood(tiny_config, pythia):
    file = pythia / "config.json"
    settings = json.loads(file.read_text())
    del settings["rope_parameters"]
    file.write_text(json.dumps({**settings, "rotary_pct": 0.25, "rotary_emb_base": 10000}))
    assert isinstance(from_pythia(tiny_config, backbone=pythia, vqgan=None), Dove)


def test_half_precision_sources_become_fp32(tiny_config, language_model, vq_model, tmp_path):
    language_model.half().save_pretrained(tmp_path / "pythia")
    vq_model.half().save_pretrained(tmp_path / "amused")
    model = from_pythia(tiny_config, backbone=tmp_path / "pythia", vqgan=tmp_path / "amused")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_source_without_output_layer(tiny_config, language_model, tmp_path):
    language_model.gpt_neox.save_pretrained(tmp_path)
    config = replace(tiny_config, eos_head="vocab", vocab_size=VOCABULARY)
    with pytest.raises(UserError, match="has no output layer .* use eos_head='binary'"):
        from_pythia(config, backbone=tmp_path, vqgan=None)
    assert isinstance(from_pythia(tiny_config, backbone=tmp_path, vqgan=None), Dove)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, r"num_attention_heads 4 \(configured: 2\)"),
        ({"hidden_size": 64}, r"hidden_size 64 \(configured: 32\)"),
        ({"rotary_pct": 0.5}, "rotary_pct"),
    ],
)
def test_other_sizes_are_named(tiny_config, tmp_path, changes, message):
    GPTNeoXForCausalLM(neox_config(**changes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        from_pythia(tiny_config, backbone=tmp_path, vqgan=None)


def test_other_image_ends_are_named(tiny_config, amused):
    config = replace(tiny_config, vqgan=replace(tiny_config.vqgan, norm_groups=2))
    with pytest.raises(UserError, match=r"norm_num_groups 4 \(configured: 2\)"):
        from_pythia(config, backbone=None, vqgan=amused)


@pytest.mark.parametrize(
    ("part", "file", "lost"),
    [
        ("pythia", "model.safetensors", "gpt_neox.final_layer_norm.bias"),
        ("amused", "diffusion_pytorch_model.safetensors", "encoder.conv_out.weight"),
    ],
)
def test_incomplete_sources_are_refused(tiny_config, tmp_path, pythia, amused, part, file, lost):
    weights = load_file(tmp_path / part / file)
    del weights[lost]
    save_file(weights, tmp_path / part / file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{part} don't fit .* 1 missing: {lost.removeprefix('gpt_neox.')}"):
        from_pythia(tiny_config, backbone=pythia, vqgan=amused)


def test_another_architecture_is_named(tiny_config, tmp_path):
    LlamaConfig(hidden_size=32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a 'llama' model; pass a GPT-NeoX such as EleutherAI/pythia-70m"):
        from_pythia(tiny_config, backbone=tmp_path, vqgan=None)


@pytest.mark.parametrize("part", ["backbone", "vqgan"])
def test_what_cannot_be_reached_is_named(tiny_config, tmp_path, monkeypatch, part):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (tmp_path, {"backbone": PYTHIA, "vqgan": AMUSED}[part]):
        with pytest.raises(
            UserError,
            match=f"cannot (load|read) .*{source}.*(check the name and the network|config.json: No such file)",
        ) as caught:
            from_pythia(tiny_config, **{"backbone": None, "vqgan": None, part: source})
        assert "\n" not in str(caught.value)
