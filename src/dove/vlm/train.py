"""Training of connector and language model: loss on the answers alone, two learning rates, exact resume."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce, set_seed
from torch import Tensor, nn
from torch.nn import functional

from dove.errors import UserError
from dove.evaluation.common import Subject, load_subject
from dove.protocol import token_width
from dove.query.tokenizer import QDove, encode_asked
from dove.runtime import save_outputs
from dove.training.config import ReconstructionLossConfig
from dove.training.objectives import Objective, Step, StepResult
from dove.training.processes import check_devices, check_launcher
from dove.training.progress import CHECKPOINTS
from dove.training.schedule import learning_rate
from dove.training.setup import resolve_length, settings_file
from dove.training.state import checkpoints
from dove.training.trainer import Trainer, make_adamw
from dove.vlm.batch import NOT_LEARNED, lay_out
from dove.vlm.cache import fill_cache, sample_tokens
from dove.vlm.checkpoint import add_lora, load_language_model, small_language_model
from dove.vlm.config import BLIND, VLMConfig, VLMTrainConfig
from dove.vlm.data import Conversations, open_conversations
from dove.vlm.evaluate import answer_questions
from dove.vlm.metrics import exact_match
from dove.vlm.model import VisionLanguageModel
from dove.vlm.samples import AnswerBatch, Samples
from dove.vlm.text import train_text_tokenizer


class AnswerObjective(Objective[AnswerBatch]):
    """Cross entropy of the answers' words, averaged over all of them in the batches of all processes."""

    model: VisionLanguageModel

    def __init__(self, model: VisionLanguageModel):
        # Answers need none of the losses on images.
        super().__init__(model, ReconstructionLossConfig(perceptual=0.0, perceptual_network="none", gan=0.0))

    def forward(self, batch: AnswerBatch, step: Step) -> StepResult:
        """Loss of a batch."""
        tokens = batch.tokens
        if batch.pixels is not None:
            tokens = encode_asked(self.model.tokenizer, batch.pixels, [batch.request], batch.queries)[0]
        lengths = [] if tokens is None else tokens.lengths.tolist()
        layout = lay_out(batch.conversations, lengths, keys=batch.keys, context=self.model.context)
        layout = layout.to(self.model.device)
        learned = layout.labels != NOT_LEARNED
        logits = self.model(layout, tokens)[learned].float()
        labels = layout.labels[learned]
        count = reduce(learned.sum().float(), reduction="mean")
        loss = functional.cross_entropy(logits, labels, reduction="sum") / count.clamp(min=1)
        right = (logits.argmax(-1) == labels).float().mean().detach()
        length = torch.tensor(float(np.mean(lengths)) if lengths else 0.0)
        metrics = {"loss": loss.detach(), "words_right": right, "length": length}
        return StepResult(loss=loss, reconstruction=logits.new_zeros(0, 3, 1, 1), metrics=metrics)

    def previews(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """None: there is nothing to see of an answer."""
        return {}


class AnswerTrainer(Trainer):
    """The tokenizer's loop over conversations; the answers of ``holdout`` are counted every ``run.sample_every`` steps."""

    config: VLMTrainConfig
    objective: AnswerObjective

    def __init__(
        self, config: VLMTrainConfig, objective: AnswerObjective, samples: Samples, holdout: Conversations
    ) -> None:
        images, save = samples.conversations.images, VisionLanguageModel.save_pretrained
        super().__init__(config, objective, images, torch.zeros(0, 3, 1, 1), save, examples=samples)
        self.questions = holdout.questions()
        self.optimizer = make_optimizer(config, objective.model)
        if self.accelerator.device.type == "cpu":  # the backward of the fused attention is several times slower there
            for model in (objective.model, self.average.module):
                model.language_model.set_attn_implementation("eager")  # type: ignore[union-attr, operator]

    def _set_rates(self, step: int) -> None:
        share = learning_rate(self.config.optim, step, self.config.run.steps) / self.config.optim.lr
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]

    def _step(self, batches: Sequence[AnswerBatch], step: int) -> StepResult:
        result = super()._step(batches, step)
        done = step + 1
        if len(self.questions) and (done % self.config.run.sample_every == 0 or done == self.config.run.steps):
            result.metrics.update(self._accuracy())
        return result

    @torch.no_grad()
    def _accuracy(self) -> dict[str, Tensor]:
        """Share of the held-out questions that the moving average answers right, by length policy."""
        model = self.layout.whole(self.average)
        if not isinstance(model, VisionLanguageModel):  # None, where another process measures
            return {}
        model.eval()
        answers = answer_questions(model, self.questions, self.config.num_tokens)
        return {
            f"accuracy/{request}": torch.tensor(np.mean([exact_match(one.said, one.question.answers) for one in found]))
            for request, found in answers.items()
        }


def make_optimizer(config: VLMTrainConfig, model: VisionLanguageModel) -> torch.optim.AdamW:
    """AdamW as the tokenizer's, with a learning rate of the connector's own."""
    parts = ((model.connector, config.connector_lr), (model.language_model, config.optim.lr))
    made = [make_adamw(config.optim, list(part.parameters()), peak) for part, peak in parts]
    groups = [group | {"peak_lr": group["lr"]} for each in made for group in each.param_groups if group["params"]]
    return torch.optim.AdamW(groups, fused=True)


def build_model(config: VLMTrainConfig, subject: Subject | None, texts: Sequence[str]) -> VisionLanguageModel:
    """The model at its start."""
    if config.language_model is None:
        text_tokenizer = train_text_tokenizer(texts, config.scratch.vocab_size)
        language_model = small_language_model(config.scratch, text_tokenizer)
    else:
        language_model, text_tokenizer = load_language_model(config.language_model)
    if config.lora.rank:
        language_model = add_lora(language_model, config.lora)
    tokenizer = None if subject is None else subject.tokenizer
    if config.query == "question" and not isinstance(tokenizer, QDove):
        raise UserError(f"{config.tokenizer} takes no queries; leave out --query question")
    settings = VLMConfig(
        tokenizer=config.tokenizer,
        tokenizer_sha256=None if subject is None else subject.sha256,
        token_dim=1 if tokenizer is None else token_width(tokenizer),
        max_tokens=1 if tokenizer is None else tokenizer.max_tokens,
        image_size=1 if tokenizer is None else tokenizer.image_size,
        language_model=config.language_model if config.lora.rank else None,
        prompt=config.prompt,
        num_tokens=config.num_tokens[0],
        query=config.query,
        lora=config.lora,
    )
    model = VisionLanguageModel(settings, language_model, text_tokenizer, tokenizer)
    model.connector.requires_grad_(subject is not None)
    return model


def run_vlm_training(config: VLMTrainConfig) -> Path:
    """Train by ``config`` and return the folder of the finished model."""
    check_launcher()
    check_devices(torch.cuda.device_count())
    if not config.output:
        raise UserError("a training needs --output (a folder)")
    output = Path(config.output)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    conversations = open_conversations(config.data, config.images, config.on_missing)
    chosen = conversations.by_question() if config.query == "question" else conversations
    training, holdout = chosen.split(config.run.holdout)
    written = settings_file(config)
    config = resolve_length(config, len(training))
    process = PartialState(cpu=not torch.cuda.is_available())
    if conversations.left_out and process.is_main_process:
        print(conversations.left_out)
    subject = None if config.tokenizer == BLIND else load_subject(config.tokenizer, process.device)
    set_seed(config.run.seed)
    model = build_model(config, subject, training.texts)
    cache = None
    if subject is not None and training.glimpses:
        tokenizer, images, glimpses = subject.tokenizer, training.images, training.glimpses
        if not checkpoints(output / CHECKPOINTS):  # which hold what the connector standardises by
            model.connector.standardise(sample_tokens(tokenizer, images, glimpses).cpu())
        if config.cache_tokens:
            cache = fill_cache(tokenizer, images, glimpses, config)
    samples = Samples(config, model.writer, training, model.config, cache)
    trainer = AnswerTrainer(config, AnswerObjective(model), samples, holdout)
    start = trainer.resume()
    if process.is_main_process:
        save_outputs({output / "config.yaml": written})
    return trainer.train(start)
