"""The loop: batches in, checkpoints, a model folder, metrics and pictures out."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dove.config import TrainConfig
from dove.data.augment import ResumableSampler, TrainingImages
from dove.data.dataset import ImageDataset
from dove.errors import UserError
from dove.models.attention import use_attention_for
from dove.training.log import TrainingLog
from dove.training.objectives import Objective, StepResult
from dove.training.schedule import learning_rate
from dove.training.state import checkpoints, load_state, save_state

PREVIEW_IMAGES = 12


class Trainer:
    """Runs an objective over a data set, on one process or as many as ``torchrun`` or ``accelerate launch`` started.

    Args:
        config: settings; every process has the same.
        objective: the model with its losses.
        dataset: training images.
        holdout: (M, 3, S, S) images in [-1, 1] that are not in ``dataset``.
        save_model: writes a model (the moving average of the weights) into a folder.
        examples: what batches are made of, asked for as ``(epoch, index)`` pairs, with a ``collate`` where they are no tensors;
            None for augmented images of ``dataset``.
    """

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        dataset: ImageDataset,
        holdout: Float[Tensor, "M 3 S S"],
        save_model: Any,
        *,
        examples: Any = None,
    ):
        self.config, self.save_model, self.holdout = config, save_model, holdout
        self.output = Path(config.output)
        self.accelerator = make_accelerator(config)
        set_seed(config.run.seed)
        self.objective = objective.to(self.accelerator.device)
        use_attention_for(objective.model, self.accelerator.device, training=True)
        self.average = AveragedModel(objective.model, multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema_decay))
        self.optimizer = make_optimizer(config, objective.model, config.optim.lr)
        self.adversary = (
            make_optimizer(config, objective.discriminator, config.optim.discriminator_lr)
            if objective.discriminator is not None
            else None
        )
        self.images = examples or TrainingImages(dataset, holdout.shape[-1], config.augment, seed=config.run.seed)
        self.wrapped = self.accelerator.prepare_model(self.objective)

    def train(self) -> Path:
        """Train to the last step, from the last checkpoint if there is one. Returns the folder of the model.

        Raises:
            UserError: if the loss is not finite, or nothing can be written.
        """
        start = self._resume()
        log = TrainingLog(self.output, start=start) if self.accelerator.is_main_process else None
        steps = self.config.run.steps
        bar = tqdm(
            total=steps, initial=start, unit="step", disable=not self.accelerator.is_local_main_process, smoothing=0.1
        )
        began, images_seen = time.monotonic(), 0
        for step, batch in zip(range(start, steps), self._batches(start), strict=False):
            result = self._step(batch, step)
            images_seen += len(batch) * self.accelerator.num_processes
            bar.update()
            done = step + 1
            if log and (done % self.config.run.log_every == 0 or done == steps):
                values = {name: round(float(value), 6) for name, value in result.metrics.items()}
                values["lr"] = self.optimizer.param_groups[0]["lr"]
                values["images_per_second"] = round(images_seen / (time.monotonic() - began), 2)
                log.numbers(done, values)
                bar.set_postfix({name: f"{values[name]:.3g}" for name in ("rec", "length") if name in values})
            if log and len(self.holdout) and (done % self.config.run.sample_every == 0 or done == steps):
                self._preview(log, done)
            if done % self.config.run.checkpoint_every == 0 or done == steps:
                self._checkpoint(done)
        bar.close()
        if log:
            log.close()
        return self.output / "model"

    def _step(self, images: Any, step: int) -> StepResult:
        """One update from a batch: images, or whatever the objective's examples are collated to."""
        images = images.to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, step, self.config.run.steps)
        self.objective.train()
        # Whatever is drawn in a step depends on the step alone, so that a resumed run draws the same.
        torch.manual_seed(hash((self.config.run.seed, step, self.accelerator.process_index)) % 2**63)
        with self.accelerator.autocast():
            result: StepResult = self.wrapped(images, step)
        self._require_finite("loss", result.loss, step)
        self.accelerator.backward(result.loss)
        self._update(self.objective.model, self.optimizer, step)
        self.average.update_parameters(self.objective.model)
        if self.adversary is not None:
            assert self.objective.discriminator is not None
            # The generator's loss has left gradients here, which are not the discriminator's own.
            self.adversary.zero_grad()
            with self.accelerator.autocast():
                loss = self.objective.adversary_loss(images, result.reconstruction)
            self.accelerator.backward(loss)
            self._average_gradients(self.objective.discriminator)
            self._update(self.objective.discriminator, self.adversary, step)
            result.metrics["discriminator"] = loss.detach()
        return result

    def _require_finite(self, what: str, value: Float[Tensor, ""], step: int) -> None:
        """Stop before anything spoils the weights that the next checkpoint would hold."""
        if not torch.isfinite(value):
            raise UserError(
                f"the {what} is {value.item()} at step {step}; the last checkpoint in {self.output} is whole: "
                "resume with a lower --optim.lr or a smaller --optim.clip-norm"
            )

    def _update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.optim.clip_norm)
        assert norm is not None
        self._require_finite("gradient", norm, step)
        optimizer.step()
        optimizer.zero_grad()

    def _average_gradients(self, model: nn.Module) -> None:
        """The discriminator is called outside the wrapped forward, so its gradients have to be averaged here."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    def _batches(self, start: int) -> Iterator[Any]:
        run = self.config.run
        sampler = ResumableSampler(
            len(self.images),
            seed=run.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            start=start * run.batch_size,
        )
        loader = DataLoader(
            self.images,
            batch_size=run.batch_size,
            sampler=sampler,
            collate_fn=getattr(self.images, "collate", None),
            num_workers=run.workers,
            persistent_workers=run.workers > 0,
        )
        return iter(loader)

    @torch.no_grad()
    def _preview(self, log: TrainingLog, step: int) -> None:
        """Held-out PSNR of the moving average by kind of reconstruction, and a picture of the first few."""
        model = self.average.module.eval()
        sums: dict[str, float] = {}
        for part in self.holdout.to(self.accelerator.device).split(self.config.run.batch_size):
            for label, images in self.objective.previews(model, part).items():
                error = (images.clamp(-1, 1) - part).square().mean((1, 2, 3))
                sums[label] = sums.get(label, 0.0) + float((10 * torch.log10(4 / error)).sum())
        log.numbers(step, {f"psnr/{label}": round(value / len(self.holdout), 3) for label, value in sums.items()})
        shown = self.holdout[:PREVIEW_IMAGES].to(self.accelerator.device)
        log.pictures(step, shown, self.objective.previews(model, shown))

    def _checkpoint(self, step: int) -> None:
        if self.accelerator.is_main_process:
            # The weights first: whoever finds the checkpoint also finds the model.
            self.save_model(self.average.module, self.output / "model")
            save_state(self.output / "checkpoints", step, self._state(step), self.config.run.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _state(self, step: int) -> dict[str, Any]:
        discriminator = self.objective.discriminator
        return {
            "step": step,
            "model": self.objective.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator": discriminator.state_dict() if discriminator is not None else None,
            "adversary": self.adversary.state_dict() if self.adversary is not None else None,
            "objective": self.objective.extra_state(),
        }

    def _resume(self) -> int:
        """Load the newest checkpoint; returns the number of steps done."""
        found = checkpoints(self.output / "checkpoints")
        if not found:
            return 0
        if self.config.resume == "never":
            raise UserError(
                f"{self.output} holds a training up to {found[-1].name}; pass another --output or --resume auto"
            )
        state = load_state(found[-1])
        self.objective.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None and self.objective.discriminator is not None:
            self.objective.discriminator.load_state_dict(state["discriminator"])
            self.adversary.load_state_dict(state["adversary"])
        self.objective.load_extra_state(state["objective"])
        return int(state["step"])


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The engine for this machine: GPUs where there are any, else CPU processes over gloo."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    precision = "no" if config.run.precision == "fp32" else "bf16"
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def make_optimizer(config: TrainConfig, model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as biases, gains and position vectors have no reason to be small."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=config.optim.betas, fused=True)
