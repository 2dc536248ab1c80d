"""Set-up of a training: data, an initialised model, and its output folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import reduce, set_seed
from jaxtyping import Float
from torch import Tensor, nn

from dove.checkpoint import save_checkpoint, write_files
from dove.data.dataset import ImageDataset, Record
from dove.data.images import open_images
from dove.errors import UserError, writing
from dove.processor import ImageProcessor
from dove.tokenizer import Dove
from dove.training.config import TrainConfig
from dove.training.processes import check_devices, check_launcher
from dove.training.progress import CHECKPOINTS
from dove.training.recipes import RECIPES, image_size
from dove.training.schedule import Settings, images_per_step, in_steps
from dove.training.state import checkpoints
from dove.training.trainer import Trainer

SAMPLE_IMAGES = 4096
"""Images that a prior is fitted to, or a codebook is drawn from."""


def run_training(config: TrainConfig) -> Path:
    """Train by ``config`` and return the folder of the finished model.

    Raises:
        UserError: for settings, data or folders that don't do.
    """
    check_launcher()
    check_devices(torch.cuda.device_count())
    if not config.data or not config.output:
        raise UserError("a training needs --data (images) and --output (a folder)")
    output = Path(config.output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    dataset, holdout = split_holdout(open_images(config.data, on_error="skip"), config.run.holdout)
    recipe = RECIPES[type(config)]
    written = settings_file(config)
    config = resolve_length(config, len(dataset))
    processor = ImageProcessor(image_size(config))
    set_seed(config.run.seed)
    resuming = bool(checkpoints(output / CHECKPOINTS))
    model = recipe.initialise(config, None if resuming else lambda: sample_images(dataset, processor))
    objective = recipe.objective(config, model)
    examples = recipe.examples(config, dataset, model) if recipe.examples else None
    save = partial(save_model, loss_networks=objective.loss.networks)
    trainer = Trainer(config, objective, dataset, load_images(holdout, processor), save, examples=examples)
    start = trainer.resume()
    process = PartialState()
    if process.is_main_process:  # not before, as a refused run must leave the settings of the training that is there
        write_files(output, {"config.yaml": written})
    model_folder = trainer.train(start)
    left_out = int(reduce(torch.tensor(getattr(examples, "left_out", 0), device=process.device), "sum"))
    if left_out and process.is_main_process:
        print(f"{left_out} times a query was left out, of whose boxes the central square of its image holds nothing")
    return model_folder


def settings_file(config: TrainConfig) -> bytes:
    """Write settings as YAML."""
    plain = json.loads(json.dumps(asdict(config)))  # with lists for tuples, which YAML does not have
    return yaml.safe_dump(plain, sort_keys=False).encode()


def resolve_length(config: Settings, images: int) -> Settings:
    """Give the same settings with as many steps as their epochs take, which the first process tells; nothing else changes."""
    process = PartialState(cpu=not torch.cuda.is_available())
    run, processes = config.run, process.num_processes
    config = in_steps(config, images, processes)
    if run.epochs and process.is_main_process:
        print(
            f"{run.epochs:g} epochs of {images:,} images are {config.run.steps:,} steps of "
            f"{images_per_step(run, processes):,} images (processes {processes} x run.accumulate {run.accumulate} x "
            f"run.batch_size {run.batch_size})"
        )
    return config


def split_holdout(dataset: ImageDataset, count: int) -> tuple[ImageDataset, ImageDataset]:
    """Split off the last ``count`` records.

    Raises:
        UserError: if that leaves nothing to train on.
    """
    if count < 0 or len(dataset) <= count:
        raise UserError(f"{len(dataset)} images with run.holdout={count} leave none to train on; lower --run.holdout")
    first = len(dataset) - count
    return dataset.select(range(first)), dataset.select(range(first, len(dataset)))


def load_images(dataset: ImageDataset, processor: ImageProcessor) -> Float[Tensor, "M 3 S S"]:
    """Load all readable images of a small data set, in [-1, 1]."""
    images = [processor.preprocess(record.image) for record in dataset if isinstance(record, Record)]
    return torch.stack(images) if images else torch.empty(0, 3, processor.image_size, processor.image_size)


def sample_images(dataset: ImageDataset, processor: ImageProcessor) -> Float[Tensor, "M 3 S S"]:
    """Load evenly spaced images to initialise a model from."""
    spacing = max(1, -(-len(dataset) // SAMPLE_IMAGES))
    return load_images(dataset.select(range(0, len(dataset), spacing)), processor)


def save_model(model: nn.Module, folder: Path, loss_networks: Sequence[str] = ()) -> None:
    """Write a checkpoint folder.

    Args:
        model: Model to save.
        folder: Its checkpoint folder.
        loss_networks: Frozen networks that its losses used, for the card: they flatter it in evaluations.
    """
    if isinstance(model, Dove):
        model.save_pretrained(folder, model_card_kwargs={"loss_networks": list(loss_networks)})
    else:
        save_checkpoint(folder, model.config, model.state_dict())
