"""The paper's start: a Pythia in both transformers and the "amused" VQGAN as image ends."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from dove.checkpoint import load_weights
from dove.config import DoveConfig
from dove.errors import UserError
from dove.models.backbone import Backbone
from dove.models.eos import VocabularyEosHead
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove

PYTHIA = "EleutherAI/pythia-70m"
AMUSED = "mao1207/vqvae-amused"

BACKBONE_SETTINGS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "use_parallel_residual",
    "rope_parameters",
)
VQGAN_SETTINGS = (
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "latent_channels",
    "num_vq_embeddings",
    "norm_num_groups",
    "mid_block_add_attention",
    "act_fn",
    "norm_type",
)
"""What has to agree for weights to mean the same. Some of it, such as the number of heads, no shape would give away."""


def from_pythia(config: DoveConfig, *, backbone: str | Path | None = PYTHIA, vqgan: str | Path | None = AMUSED) -> Dove:
    """A tokenizer of which the transformers and the image ends start from pretrained weights, the rest from noise.

    Args:
        config: sizes, which must be those of what is loaded.
        backbone: hub id or folder of a GPT-NeoX with safetensors weights, for generator and decoder alike, with its
            output layer where ``config.eos_head`` is "vocab"; None to draw the transformers at random.
        vqgan: hub id or folder of a diffusers ``VQModel`` with safetensors weights; None to draw the image ends at
            random.

    Raises:
        UserError: if something cannot be reached or has other sizes than ``config``.
    """
    model = Dove(config)
    if backbone is not None:
        import_backbones(model, backbone)
    if vqgan is not None:
        import_vqgan(model.vqgan, vqgan)
    return model


def import_backbones(model: Dove, source: str | Path) -> None:
    """Copy a GPT-NeoX into generator and token decoder, and its output layer into the ``vocab`` EOS head."""
    loaded, has_output = _load_gpt_neox(source)
    settings = loaded.config.to_dict()
    blocks = {name: tensor for name, tensor in loaded.gpt_neox.state_dict().items() if not name.startswith("embed_in")}
    for part in (model.generator.backbone, model.token_decoder.backbone):
        import_backbone(part, settings, blocks, source)
    if not isinstance(model.generator.eos_head, VocabularyEosHead):
        return
    if not has_output:
        raise UserError(f"{source} has no output layer (embed_out) for eos_head='vocab'; use eos_head='binary'")
    load_weights(model.generator.eos_head.projection, loaded.get_output_embeddings().state_dict(), source)


def import_backbone(
    backbone: Backbone, settings: Mapping[str, Any], weights: Mapping[str, Tensor], source: str | Path
) -> None:
    """Copy the blocks of a ``GPTNeoXModel``, given its settings and its state dict without the word embedding."""
    _check_settings(backbone.model.config.to_dict(), settings, BACKBONE_SETTINGS, source)
    load_weights(backbone.model, weights, source)


def import_vqgan(vqgan: VQGAN, source: str | Path) -> None:
    """Copy a diffusers ``VQModel`` from a hub id or a folder."""
    try:
        with warnings.catch_warnings():
            # diffusers asks the hub library for an option that it no longer has.
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            loaded, report = VQModel.from_pretrained(
                str(source), use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise _unreachable(source, "a diffusers VQModel", error) from error
    _check_complete(set(report["missing_keys"]), source)
    _check_settings(vqgan.model.config, loaded.config, VQGAN_SETTINGS, source)
    load_weights(vqgan.model, loaded.float().state_dict(), source)


def _load_gpt_neox(source: str | Path) -> tuple[GPTNeoXForCausalLM, bool]:
    """A GPT-NeoX in fp32, and whether its output layer was in the file or had to be drawn at random."""
    kind = "a GPT-NeoX"
    try:
        values, _ = GPTNeoXConfig.get_config_dict(str(source))
        if not values:
            raise OSError("it has no config.json")
        if values.get("model_type") != "gpt_neox":
            raise UserError(f"{source} is a {values.get('model_type')!r} model; pass {kind} such as {PYTHIA}")
        result: Any = GPTNeoXForCausalLM.from_pretrained(
            str(source), use_safetensors=True, output_loading_info=True, dtype="float32"
        )
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise _unreachable(source, kind, error) from error
    loaded, report = result
    output = {name for name in report["missing_keys"] if name.startswith(("lm_head.", "embed_out."))}
    _check_complete(set(report["missing_keys"]) - output, source)
    return loaded, not output


def _check_complete(missing: set[str], source: str | Path) -> None:
    # Both libraries draw what is missing at random and go on.
    if missing:
        raise UserError(f"{source} lacks {len(missing)} weights, such as {min(missing)}; copy or download it again")


def _check_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any], names: tuple[str, ...], source: object) -> None:
    differing = [
        f"{name} {theirs.get(name)} (configured: {ours.get(name)})"
        for name in names
        if _comparable(ours.get(name)) != _comparable(theirs.get(name))
    ]
    if differing:
        raise UserError(f"{source} has other sizes: {', '.join(differing)}; change the config or load another model")


def _comparable(setting: Any) -> Any:
    return list(setting) if isinstance(setting, tuple) else setting


def _unreachable(source: str | Path, kind: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    where = "folder" if os.path.isdir(source) else "hub id (no such folder here)"
    return UserError(
        f"cannot load {kind} from the {where} {str(source)!r}: {reason}; "
        "check the name and the network, or pass a local folder with config.json and safetensors weights"
    )
