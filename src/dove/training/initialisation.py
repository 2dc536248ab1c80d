"""Initialisation of models: sizes from the settings, weights at random, computed or from a checkpoint."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.baselines.alit import ALIT
from dove.baselines.config import MaskgitVQGANConfig
from dove.baselines.maskgit_vqgan import MaskgitVQGAN
from dove.baselines.titok import TwoStageTiTok, make_titok
from dove.baselines.vqgan import MaskgitTokenizer
from dove.checkpoint import load_checkpoint, load_weights, resolve_checkpoint
from dove.config import DoveConfig
from dove.errors import UserError
from dove.models.pretrained import AMUSED, check_settings, import_backbones, import_vqgan, import_words
from dove.models.prior import CosinePrior
from dove.models.vqgan import VQGAN
from dove.query.config import QDoveConfig
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
)
from dove.training.config import TokenizerTrainConfig

Sample = Callable[[], Float[Tensor, "M 3 S S"]] | None
"""Function that loads some training images in [-1, 1], to compute weights from; None where a run resumes, whose weights
come from its checkpoint."""


CODEBOOK_IMAGES = 256
"""Images from whose latents a codebook is drawn."""


def initialise_dove(config: TokenizerTrainConfig, sample: Sample) -> Dove:
    """Make the whole tokenizer."""
    model = QDove(config.model) if isinstance(config.model, QDoveConfig) else Dove(config.model)
    if not sample:
        return model
    if isinstance(model.prior, CosinePrior) and config.start != "checkpoint":
        fit_prior(model, model.prior, sample())
    if config.start == "pretrained":
        require_pixel_range(config)
        import_backbones(model, config.pretrained_backbone)
        import_vqgan(require_vqgan(model), config.pretrained_vqgan)
    if isinstance(model, QDove) and (words := getattr(config, "pretrained_words", "")):
        import_words(model.generator.query_embedding.words, words)  # a checkpoint that has words brings its own
    if config.start == "checkpoint":
        initialise_from_checkpoint(model, config.checkpoint)
    if config.vqgan_checkpoint:
        load_stage(require_vqgan(model), config.model.vqgan, config.vqgan_checkpoint)
    return model


def require_pixel_range(config: TokenizerTrainConfig) -> None:
    """Refuse to give the "amused" VQGAN pixels that it was not trained on."""
    if config.pretrained_vqgan == AMUSED and config.model.vqgan.pixel_range != "0..1":
        raise UserError(
            f"{AMUSED} was trained on pixels in [0, 1], and model.vqgan.pixel_range={config.model.vqgan.pixel_range} would "
            "give it others; pass --model.vqgan.pixel-range 0..1"
        )


def require_vqgan(model: Dove) -> VQGAN:
    """Give a tokenizer's VQGAN."""
    if not isinstance(model.vqgan, VQGAN):
        raise UserError("a pretrained VQGAN needs --model.autoencoder vqgan; this model has patches")
    return model.vqgan


@torch.no_grad()
def fit_prior(model: Dove, prior: CosinePrior, images: Float[Tensor, "M 3 S S"]) -> None:
    """Fit the prior to images in [-1, 1], and set the decoder's last layer to zero, which would disturb it at first."""
    prior.fit(images)
    last = model.vqgan.decoder.conv_out if isinstance(model.vqgan, VQGAN) else model.vqgan.conv_out
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def initialise_from_checkpoint(model: Dove, source: str) -> None:
    """Take over the weights of another tokenizer; those it lacks, such as another EOS head's, stay as they are.

    From a head that predicts a perceptual distance beside the PSNR, a model that predicts the PSNR alone takes that part.
    """
    if not source:
        raise UserError("start=checkpoint needs --checkpoint with a model folder or a shipped name")
    other = Dove.from_pretrained(source)
    check_settings(settings_of_weights(model.config), settings_of_weights(other.config), source)
    own, weights = model.state_dict(), other.state_dict()
    if model.config.eos_head == other.config.eos_head == "quality":
        for name in ("generator.eos_head.projection.weight", "generator.eos_head.projection.bias"):
            weights[name] = weights[name][: len(own[name])]
    if model.config.eos_head != other.config.eos_head:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("generator.eos_head.")}
    load_weights(model, own | weights, source)


def settings_of_weights(config: DoveConfig) -> dict[str, Any]:
    """List the settings that have to agree for weights to mean the same."""
    found: dict[str, Any] = {name: getattr(config, name) for name in ("autoencoder", "prior", "prior_numbers")}
    for part in ("generator", "decoder"):
        sizes = asdict(getattr(config, part))
        del sizes["initializer_range"]
        found |= {f"{part}.{name}": value for name, value in sizes.items()}
    return found


@torch.no_grad()
def initialise_maskgit_vqgan(config: MaskgitVQGANTrainConfig, sample: Sample) -> MaskgitTokenizer:
    """Make the VQGAN without attention; each codebook entry is the latent of a training image, so that none lies idle."""
    model = MaskgitTokenizer(config.model)
    if sample:
        entries = model.vqgan.quantize.embedding.weight
        parts = sample()[:CODEBOOK_IMAGES].split(16)
        latents = torch.cat([model.vqgan.encode(part).flatten(0, 1) for part in parts])
        entries.copy_(latents[torch.randperm(len(latents))[torch.arange(len(entries)) % len(latents)]])
    return model


def initialise_titok_codes(config: TiTokCodesTrainConfig, _sample: Sample) -> TwoStageTiTok:
    """Make a two-stage TiTok with random weights and the codebook and the decoder of its VQGAN."""
    model = make_titok(config.model)
    assert isinstance(model, TwoStageTiTok)
    teacher = load_teacher(config.vqgan_checkpoint, model.config.vqgan)
    model.pixel_quantize.load_state_dict(teacher.quantize.state_dict())
    model.pixel_decoder.load_state_dict(teacher.decoder.state_dict())
    return model


def initialise_alit_codes(config: ALITCodesTrainConfig, _sample: Sample) -> ALIT:
    """Make ALIT with random weights around its VQGAN."""
    model = ALIT(config.model)
    model.base_tokenizer = load_teacher(config.vqgan_checkpoint, model.config.vqgan)
    return model


def initialise_pixels(config: TiTokPixelsTrainConfig | ALITPixelsTrainConfig, _sample: Sample) -> nn.Module:
    """Load TiTok or ALIT as stage one left it."""
    model = ALIT(config.model) if isinstance(config, ALITPixelsTrainConfig) else make_titok(config.model)
    load_stage(model, model.config, config.stage_one)
    return model


def load_teacher(source: str, expected: MaskgitVQGANConfig) -> MaskgitVQGAN:
    """Load the VQGAN that a two-stage model learns from."""
    if not source:
        raise UserError("stage one needs --vqgan-checkpoint with the model folder of a trained maskgit-vqgan preset")
    tokenizer = MaskgitTokenizer(expected)
    load_stage(tokenizer, expected, source)
    return tokenizer.vqgan


def load_stage(model: nn.Module, expected: Any, source: str) -> None:
    """Copy the weights of an earlier stage's model folder."""
    if not source:
        raise UserError("the second stage needs --stage-one with the model folder of the first")
    folder = resolve_checkpoint(source)
    settings, weights = load_checkpoint(folder, type(expected))
    if settings != expected:
        raise UserError(f"{source} holds a model of other sizes ({settings}); pass one made with {expected}")
    load_weights(model, weights, folder)
