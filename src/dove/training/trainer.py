"""Training loop: from batches to checkpoints, a model folder, metrics and pictures."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dove.data.augment import TrainingImages
from dove.data.dataset import ImageDataset
from dove.data.loader import loader_watched
from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.metrics import psnr
from dove.training.batches import Batches
from dove.training.config import OptimConfig, TrainConfig
from dove.training.finite import FiniteGuard
from dove.training.layout import gather, make_layout, own_moments, own_weights
from dove.training.log import TrainingLog
from dove.training.memory import checkpoint_activations, memory_watched
from dove.training.objectives import Objective, Step, StepResult
from dove.training.processes import loader_processes
from dove.training.progress import CHECKPOINTS
from dove.training.schedule import images_per_step, learning_rate
from dove.training.state import BackgroundWriter, checkpoints, load_state, remove_scraps, save_state

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
        objective: Objective[Any],
        dataset: ImageDataset,
        holdout: Float[Tensor, "M 3 S S"],
        save_model: Any,
        *,
        examples: Any = None,
    ):
        self.config, self.save_model, self.holdout = config, save_model, holdout
        self.output = Path(config.output)
        self.accelerator = make_accelerator(config, some_unused=objective.some_unused)
        self.images_per_step = images_per_step(config.run, self.accelerator.num_processes)
        set_seed(config.run.seed)
        self.objective = objective
        self.average = AveragedModel(objective.model, multi_avg_fn=moving_average(config.optim.ema_decay))
        self.layout = make_layout(config, objective, self.accelerator)
        if config.run.activation_checkpointing:
            checkpoint_activations(objective.model)  # not the moving average, of which copies are made
        self.wrapped = self.layout.spread(self.objective, self.average)
        self.optimizer = make_adamw(config.optim, objective.trained(), config.optim.lr)
        self.adversary = (
            make_adamw(config.optim, list(objective.discriminator.parameters()), config.optim.discriminator_lr)
            if objective.discriminator is not None
            else None
        )
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.batches = Batches(
            examples or TrainingImages(dataset, holdout.shape[-1], config.augment, seed=config.run.seed),
            config.run,
            rank=rank,
            world_size=world,
            workers=loader_processes(config.run.workers, gpu=self.accelerator.device.type == "cuda"),
        )
        self.guard = FiniteGuard(config.run.non_finite, self.output, self.batches.records, rank)

    def train(self, start: int) -> Path:
        """Train from ``start`` steps on, which :meth:`resume` gives, to the last. Returns the folder of the model.

        Raises:
            UserError: if the loss is not finite, a loader process is lost, or nothing can be written.
        """
        main, tracker = self.accelerator.is_main_process, self.config.run.log
        log = TrainingLog(self.output, start=start, tracker=tracker) if main else None
        steps, silent = self.config.run.steps, not self.accelerator.is_local_main_process
        with (
            ProgressBar(desc="training", total=steps, initial=start, unit="step", disable=silent, leave=True) as bar,
            BackgroundWriter() as writer,
            loader_watched(),
            memory_watched(self.config.run),
        ):
            self._run(start, log, bar, writer)
            writer.wait()
        self.accelerator.wait_for_everyone()
        if log:
            log.tracker.close()
        if self.guard.skipped:
            print(f"{self.guard.skipped} updates were left out; their batches are named in {self.guard.folder}")
        return self.output / "model"

    def _run(self, start: int, log: TrainingLog | None, bar: Any, writer: BackgroundWriter) -> None:
        run = self.config.run
        began, images_seen = time.monotonic(), 0
        for step, batches in zip(range(start, run.steps), self.batches.from_step(start), strict=False):
            result = self._step(batches, step)
            images_seen += sum(map(len, batches)) * self.accelerator.num_processes
            bar.update()
            writer.check()
            done = step + 1
            logs, saves = (done % every == 0 or done == run.steps for every in (run.log_every, run.checkpoint_every))
            if logs or saves or self.accelerator.device.type == "cpu":
                self.guard.settle()
            if log and logs:
                values = {name: round(float(value), 6) for name, value in result.metrics.items()}
                values["lr"] = self.optimizer.param_groups[0]["lr"]
                values["images"] = done * self.images_per_step
                values["images_per_second"] = round(images_seen / (time.monotonic() - began), 2)
                if self.guard.skipped:
                    values["skipped"] = self.guard.skipped
                log.numbers(done, values)
                bar.set_postfix(
                    {name: f"{values[name]:.3g}" for name in ("rec", "length") if name in values}, refresh=False
                )
            if len(self.holdout) and (done % run.sample_every == 0 or done == run.steps):
                self._preview(log, done)
            if saves:
                self._checkpoint(done, writer)

    def _step(self, batches: Sequence[Any], step: int) -> StepResult:
        """Make one update from one or more micro-batches of the objective's type."""
        batches = [batch.to(self.accelerator.device) for batch in batches]
        self._set_rates(step)
        self.objective.train()
        results = [self._backward(batch, step, number, len(batches)) for number, batch in enumerate(batches)]
        loss = torch.stack([result.loss.detach() for result in results]).mean()
        self._average_gradients(self.layout.beside(self.objective))
        self._update(self.objective.trained(), self.optimizer, step, {"loss": loss})
        self.average.update_parameters(self.objective.model)
        metrics = {
            name: torch.stack([result.metrics[name].float() for result in results]).mean()
            for name in results[0].metrics
        }
        if self.adversary is not None:
            metrics["discriminator"] = self._train_adversary(batches, results, step)
        return StepResult(loss, results[-1].reconstruction, metrics)

    def _set_rates(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, step, self.config.run.steps)

    def _backward(self, batch: Any, step: int, number: int, count: int) -> StepResult:
        """Compute loss and gradients of one of the ``count`` micro-batches of a step."""
        position = Step(step, self.accelerator.process_index + number * self.accelerator.num_processes)
        torch.manual_seed(position.seed(self.config.run.seed))
        # Gradients go between the processes once a step, with those of its last batch; where they are sharded with every
        # batch, as they would have to be whole until then.
        alone = self.accelerator.no_sync(self.wrapped) if number + 1 < count else nullcontext()
        with alone:
            with self.accelerator.autocast():
                result: StepResult = self.wrapped(batch, position)
            self.accelerator.backward(result.loss / count)
        return result

    def _train_adversary(self, batches: Sequence[Any], results: Sequence[StepResult], step: int) -> Tensor:
        assert self.adversary is not None
        assert self.objective.discriminator is not None
        # The generator's loss has left gradients here, which are not the discriminator's own.
        self.adversary.zero_grad()
        losses = []
        for batch, result in zip(batches, results, strict=True):
            with self.accelerator.autocast():
                loss = self.objective.adversary_loss(batch, result.reconstruction)
            self.accelerator.backward(loss / len(batches))
            losses.append(loss.detach())
        parameters = list(self.objective.discriminator.parameters())
        self._average_gradients(parameters)
        mean = torch.stack(losses).mean()
        self._update(parameters, self.adversary, step, {"discriminator's loss": mean})
        return mean

    def _update(
        self,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        step: int,
        losses: dict[str, Float[Tensor, ""]],
    ) -> None:
        """Move the weights, unless a loss or the gradient of any process is not finite."""
        norm = self.accelerator.clip_grad_norm_(parameters, self.config.optim.clip_norm)
        assert norm is not None
        values = {**losses, "gradient": gather(norm)}
        at_fault = ~torch.stack([value.detach().float().isfinite() for value in values.values()]).all()
        left_out = self.accelerator.reduce(at_fault.float(), reduction="sum").clamp(max=1)
        # The fused kernel looks at this on the device, as it does for a gradient scaler, and leaves the update out.
        optimizer.found_inf = left_out  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        self.guard.watch(step, left_out, values)

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the processes that nothing else averages, such as the discriminator's."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    @torch.no_grad()
    def _preview(self, log: TrainingLog | None, step: int) -> None:
        """Measure the held-out PSNR of the moving average by kind of reconstruction, and draw the first few images."""
        model = self.layout.whole(self.average)
        if log is None or model is None:
            return
        model.eval()
        sums: dict[str, float] = {}
        for part in torch.split(self.holdout.to(self.accelerator.device), self.config.run.batch_size):
            for label, images in self.objective.previews(model, part).items():
                sums[label] = sums.get(label, 0.0) + float(psnr(images, part).sum())
        log.numbers(step, {f"psnr/{label}": round(value / len(self.holdout), 3) for label, value in sums.items()})
        shown = self.holdout[:PREVIEW_IMAGES].to(self.accelerator.device)
        log.pictures(step, shown, self.objective.previews(model, shown))

    def _checkpoint(self, step: int, writer: BackgroundWriter) -> None:
        """Copy everything and leave the writing to the writer's thread."""
        writer.wait()  # before the copy, so that there is never more than one
        copies = self.layout.copies(self.average, self._state(step))
        if copies is None:
            return
        model, state = copies

        def write() -> None:
            # The weights first: whoever finds the checkpoint also finds the model.
            self.save_model(model, self.output / "model")
            save_state(self.output / CHECKPOINTS, step, state, self.config.run.keep_checkpoints)

        writer.begin(write)

    def _state(self, step: int) -> dict[str, Any]:
        discriminator = self.objective.discriminator
        return {
            "step": step,
            "images_per_step": self.images_per_step,
            "model": self.objective.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator": discriminator.state_dict() if discriminator is not None else None,
            "adversary": self.adversary.state_dict() if self.adversary is not None else None,
            "objective": {name: part.state_dict() for name, part in self.objective.kept.items()},
        }

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one, and return the number of steps done.

        Raises:
            UserError: if it must not or cannot go on from there.
        """
        if self.accelerator.is_main_process:
            remove_scraps(self.output / CHECKPOINTS)
        found = checkpoints(self.output / CHECKPOINTS)
        if not found:
            return 0
        if self.config.resume == "never":
            raise UserError(
                f"{self.output} holds a training up to {found[-1].name}; pass another --output or --resume auto"
            )
        state = load_state(found[-1])
        self._check_batch(found[-1], int(state["images_per_step"]))
        try:
            for module, weights in ((self.objective.model, state["model"]), (self.average, state["average"])):
                module.load_state_dict(own_weights(module, weights))
            load_moments(self.optimizer, own_moments(self.optimizer, state["optimizer"]))
            if self.adversary is not None and self.objective.discriminator is not None:
                self.objective.discriminator.load_state_dict(state["discriminator"])
                load_moments(self.adversary, state["adversary"])
            for name, part in self.objective.kept.items():
                part.load_state_dict(state["objective"][name])
        except torch.OutOfMemoryError:
            raise
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{found[-1]} belongs to a model or to losses with other settings, those in {self.output / 'config.yaml'}; "
                "repeat them, or pass another --output"
            ) from error
        return int(state["step"])

    def _check_batch(self, checkpoint: Path, before: int) -> None:
        """Refuse to go on with another number of images a step: steps would count other samples than they did."""
        if before != self.images_per_step:
            run, processes = self.config.run, self.accelerator.num_processes
            raise UserError(
                f"{checkpoint} was trained with {before} images a step, and this run has {self.images_per_step} (processes "
                f"{processes} x run.accumulate {run.accumulate} x run.batch_size {run.batch_size}); choose these for "
                f"{before}, or pass another --output and start from the model in {self.output / 'model'}"
            )


def moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Make the update of an exponential moving average that forgets the first weights soon.

    After n updates the decay is at most (1 + n) / (10 + n), so a short run is not dominated by random weights.
    """

    @torch.no_grad()
    def update(average: Any, current: Any, count: Tensor | int) -> None:
        done = int(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + done) / (10 + done)))

    return update


def make_adamw(config: OptimConfig, parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as biases, gains and position vectors have no reason to be small."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=True)


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state, but not its settings, which are those of this run."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def make_accelerator(config: TrainConfig, *, some_unused: bool) -> Accelerator:
    """Make the accelerator of this machine: GPUs if there are any, else CPU processes over gloo.

    DDP has to be told if some trained parameters have no part in some steps.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    return Accelerator(
        mixed_precision=select_precision(config.run.precision),
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=some_unused)],
    )


def select_precision(name: str) -> str:
    """Give accelerate's word for a precision; auto is bf16 on GPUs and on CPUs that torch knows to have instructions for it."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = any(capabilities.get(instructions) for instructions in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
    return "bf16" if name == "bf16" or (name == "auto" and (fast or torch.cuda.is_available())) else "no"
