"""From settings to a trainer: data, a model at its start, and where things are written."""

from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import set_seed
from jaxtyping import Float
from torch import Tensor, nn

from dove.checkpoint import load_checkpoint, load_weights, resolve_checkpoint, save_checkpoint
from dove.closed_form import start_from_bands, start_from_patches
from dove.config import TokenizerTrainConfig, TrainConfig, VQGANConfig, VQGANTrainConfig
from dove.data.dataset import ImageDataset, Record
from dove.data.images import open_images
from dove.errors import UserError
from dove.initialization import import_backbones, import_vqgan
from dove.models.vqgan import VQGAN, make_vqgan
from dove.processor import ImageProcessor
from dove.tokenizer import Dove
from dove.training.objectives import make_objective
from dove.training.trainer import Trainer

COMPONENT_IMAGES = 4096
"""Images that a closed-form start is computed from."""


def run_training(config: TrainConfig) -> Path:
    """Train by ``config`` and return the folder of the finished model.

    Raises:
        UserError: for settings, data or folders that don't do.
    """
    if not config.data or not config.output:
        raise UserError("a training needs --data (images) and --output (a folder)")
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}; pass another --output") from error
    dataset, holdout = split_holdout(open_images(config.data, on_error="skip"), config.run.holdout)
    processor = ImageProcessor(image_config(config).image_size)
    set_seed(config.run.seed)
    resuming = (output / "checkpoints").exists()
    model = build_model(config, None if resuming else dataset, processor)
    trainer = Trainer(config, make_objective(config, model), dataset, load_images(holdout, processor), save_model)
    if PartialState().is_main_process:
        (output / "config.yaml").write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False), encoding="utf-8")
    return trainer.train()


def image_config(config: TrainConfig) -> VQGANConfig:
    """The settings of the image ends, wherever they are."""
    assert isinstance(config, VQGANTrainConfig | TokenizerTrainConfig)
    return config.model if isinstance(config, VQGANTrainConfig) else config.model.vqgan


def split_holdout(dataset: ImageDataset, count: int) -> tuple[ImageDataset, ImageDataset]:
    """All but the last ``count`` records, and those.

    Raises:
        UserError: if that leaves nothing to train on.
    """
    if count < 0 or len(dataset) <= count:
        raise UserError(f"{len(dataset)} images with run.holdout={count} leave none to train on; lower --run.holdout")
    first = len(dataset) - count
    return dataset.select(range(first)), dataset.select(range(first, len(dataset)))


def load_images(dataset: ImageDataset, processor: ImageProcessor) -> Float[Tensor, "M 3 S S"]:
    """All readable images of a small data set, in [-1, 1]."""
    images = [processor.preprocess(record.image) for record in dataset if isinstance(record, Record)]
    return torch.stack(images) if images else torch.empty(0, 3, processor.image_size, processor.image_size)


def build_model(config: TrainConfig, dataset: ImageDataset | None, processor: ImageProcessor) -> nn.Module:
    """The model at its start; without a data set, as for a resumed run, with random weights."""
    if isinstance(config, VQGANTrainConfig):
        vqgan = make_vqgan(config.model)
        if config.start == "components" and dataset is not None:
            start_from_patches(vqgan, component_images(dataset, processor))
        return vqgan
    assert isinstance(config, TokenizerTrainConfig)
    model = Dove(config.model)
    if dataset is None:
        return model
    if config.start == "pretrained":
        import_backbones(model, config.pretrained_backbone)
        import_vqgan(model.vqgan, config.pretrained_vqgan)
    if config.vqgan_checkpoint:
        load_vqgan_stage(model.vqgan, config.vqgan_checkpoint)
    if config.start == "components":
        images = component_images(dataset, processor)
        if not config.vqgan_checkpoint:
            start_from_patches(model.vqgan, images)
        start_from_bands(model, images)
    return model


def load_vqgan_stage(vqgan: VQGAN, source: str) -> None:
    """Copy the image ends from the model folder of a VQGAN stage.

    Raises:
        UserError: if that stage had other sizes.
    """
    folder = resolve_checkpoint(source)
    settings, weights = load_checkpoint(folder, VQGANConfig)
    if settings != vqgan.config:
        raise UserError(f"{source} holds a VQGAN of other sizes ({settings}); pass one made with {vqgan.config}")
    load_weights(vqgan, weights, folder)


def component_images(dataset: ImageDataset, processor: ImageProcessor) -> Float[Tensor, "M 3 S S"]:
    """Evenly spaced images for a closed-form start."""
    spacing = max(1, len(dataset) // COMPONENT_IMAGES)
    return load_images(dataset.select(range(0, len(dataset), spacing)), processor)


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a checkpoint folder of the kind the model has."""
    if isinstance(model, Dove):
        model.save_pretrained(folder)
        return
    assert isinstance(model, VQGAN)
    save_checkpoint(folder, model.config, model.state_dict())


def _plain(value: object) -> object:
    """Tuples as lists, all the way down: YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
