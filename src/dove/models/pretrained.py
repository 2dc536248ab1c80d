"""The paper's initialisation: a Pythia in both transformers and the "amused" VQGAN.

Both are read from their own files, config.json and safetensors, by name: neither transformers nor diffusers is needed. What
cannot be reached, is another kind of model, has other sizes or lacks weights raises ``UserError``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dove.checkpoint import download, load_weights
from dove.config import BackboneConfig, VQGANConfig
from dove.data.json_files import read_json
from dove.errors import UserError
from dove.models.eos import VocabularyEosHead
from dove.models.transformer import ROTARY_BASE
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove
from dove.weight_files import read_weights

PYTHIA = "EleutherAI/pythia-70m"
AMUSED = "mao1207/vqvae-amused"

TRANSFORMER_PREFIX = "gpt_neox."
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Suffixes of the names under which older GPT-NeoX files store constants."""


def import_backbones(model: Dove, source: str | Path) -> None:
    """Copy a GPT-NeoX into generator and token decoder, and its output layer into the ``vocab`` EOS head."""
    kind = f"a GPT-NeoX such as {PYTHIA}"
    folder = fetch(source, kind)
    settings = read_settings(folder)
    if settings.get("model_type") != "gpt_neox":
        raise UserError(f"{source} is a {settings.get('model_type')!r} model; pass {kind}")
    weights = {name: tensor.float() for name, tensor in read_weights(folder).items() if not name.endswith(BUFFERS)}
    bare = {name.removeprefix(TRANSFORMER_PREFIX): tensor for name, tensor in weights.items()}
    blocks = {name: tensor for name, tensor in bare.items() if name.startswith(("layers.", "final_layer_norm."))}
    for part in (model.generator.transformer, model.token_decoder.transformer):
        check_settings(neox_settings(part.config), flat_rotary(settings), source)
        load_weights(part, blocks, source)
    head = model.generator.eos_head
    if isinstance(head, VocabularyEosHead):
        output = bare.get("embed_out.weight", bare.get("lm_head.weight"))
        if output is None:
            raise UserError(f"{source} has no output layer (embed_out) for eos_head='vocab'; use eos_head='binary'")
        load_weights(head.projection, {"weight": output}, source)


def import_words(words: nn.Embedding, source: str | Path) -> None:
    """Copy a GPT-NeoX's word embedding."""
    weights = read_weights(fetch(source, f"a GPT-NeoX such as {PYTHIA}"))
    found = weights.get(f"{TRANSFORMER_PREFIX}embed_in.weight", weights.get("embed_in.weight"))
    if found is None:
        raise UserError(f"{source} has no word embedding (embed_in); pass another language model")
    load_weights(words, {"weight": found.float()}, source)


def import_vqgan(vqgan: VQGAN, source: str | Path) -> None:
    """Copy a diffusers ``VQModel`` from a hub id or a folder."""
    folder = fetch(source, "a diffusers VQModel")
    settings = read_settings(folder)
    check_settings(vqmodel_settings(vqgan.config), VQMODEL_DEFAULTS | settings, source)
    weights = read_weights(folder, "diffusion_pytorch_model")
    load_weights(vqgan, {name: tensor.float() for name, tensor in weights.items()}, source)


NEOX_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "use_parallel_residual": True,
    "rotary_pct": 0.25,
    "rotary_emb_base": ROTARY_BASE,
}
"""Values of transformers for settings that files may lack."""


def neox_settings(config: BackboneConfig) -> dict[str, Any]:
    """Return the settings of a transformers ``GPTNeoXConfig`` that must agree for weights to mean the same."""
    return NEOX_DEFAULTS | {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "rotary_pct": config.rotary_fraction,
    }


def flat_rotary(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the rotary settings to the names of Pythia's own config, which newer files nest."""
    flat = {"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"}
    nested = settings.get("rope_parameters") or {}
    return NEOX_DEFAULTS | {flat[name]: nested[name] for name in flat if name in nested} | dict(settings)


VQMODEL_DEFAULTS = {"mid_block_add_attention": True, "act_fn": "silu", "norm_type": "group", "vq_embed_dim": None}
"""Values of diffusers for settings that older files lack."""


def vqmodel_settings(config: VQGANConfig) -> dict[str, Any]:
    """Return the settings of a diffusers ``VQModel`` that must agree for weights to mean the same."""
    return VQMODEL_DEFAULTS | {
        "in_channels": 3 * config.patch_size**2,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "num_vq_embeddings": config.codebook_size,
        "norm_num_groups": config.norm_groups,
        "mid_block_add_attention": config.mid_attention,
        "vq_embed_dim": config.embedding_dim,
    }


def fetch(source: str | Path, kind: str) -> Path:
    """Find a folder, or download a hub id's config and safetensors."""
    if Path(source).is_dir():
        return Path(source)
    remedy = f"pass a folder with config.json and safetensors weights of {kind}"
    return download(str(source), ("config.json", "*.safetensors", "*.index.json"), remedy)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read a config.json."""
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict):
        raise UserError(f"{folder / 'config.json'} is no table of settings; copy or download it again")
    return settings


def check_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str | Path) -> None:
    """Compare settings, as some differences, such as another number of heads, do not show in shapes."""
    differing = [
        f"{name} {theirs.get(name)} (configured: {ours[name]})" for name in ours if ours[name] != theirs.get(name)
    ]
    if differing:
        raise UserError(f"{source} has other sizes: {', '.join(differing)}; change the config or load another model")
