"""Conversion of published weights of the systems that DOVE is compared with to checkpoint folders."""

from pathlib import Path
from typing import Any

from dove.baselines import alit, titok, vqgan
from dove.baselines.config import ALITS, TITOKS
from dove.checkpoint import save_checkpoint
from dove.config import VQGANConfig
from dove.errors import UserError
from dove.models.pretrained import VQMODEL_DEFAULTS, fetch, import_vqgan, read_settings
from dove.models.vqgan import VQGAN

VQMODEL = "vqmodel"
KINDS = (VQMODEL, *vqgan.LAYOUTS, *TITOKS, *ALITS)
"""Layouts of published weights: a diffusers VQModel, the VQGAN of the two-stage models, and those models by name."""


def convert_rival(kind: str, source: str, output: Path) -> None:
    """Write published weights as a checkpoint folder, which every evaluation takes."""
    if kind not in KINDS:
        raise UserError(f"no kind {kind!r} of weights; there are dove, {', '.join(KINDS)}")
    model: Any
    if kind == VQMODEL:
        model = VQGAN(read_vqgan_config(source))
        import_vqgan(model, source)
    else:
        module = titok if kind in TITOKS else alit if kind in ALITS else vqgan
        model = module.load_published(kind, source)
    save_checkpoint(output, model.config, model.state_dict())


def read_vqgan_config(source: str) -> VQGANConfig:
    """Read the sizes of a diffusers ``VQModel``; its images have 16 latents a side and pixels in [0, 1], as the paper's."""
    kind = "a diffusers VQModel"
    settings: dict[str, Any] = VQMODEL_DEFAULTS | read_settings(fetch(source, kind))
    lacking = sorted({"block_out_channels", "layers_per_block", "latent_channels", "num_vq_embeddings"} - set(settings))
    if lacking:
        raise UserError(f"the config.json of {source} has no {', '.join(lacking)}; pass {kind}")
    channels = tuple(settings["block_out_channels"])
    return VQGANConfig(
        image_size=16 * 2 ** (len(channels) - 1),
        block_out_channels=channels,
        layers_per_block=settings["layers_per_block"],
        latent_channels=settings["latent_channels"],
        embedding_dim=settings.get("vq_embed_dim"),
        codebook_size=settings["num_vq_embeddings"],
        norm_groups=settings.get("norm_num_groups", 32),
        mid_attention=settings["mid_block_add_attention"],
        pixel_range="0..1",
    )
