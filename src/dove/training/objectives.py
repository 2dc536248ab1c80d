"""Objectives of trainings: the only place where models and losses meet.

An objective owns a model and turns a batch into a loss. The trainer knows nothing else about what it trains, so a new
tokenizer needs an objective and no new loop.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dove.lengths import Auto
from dove.losses.adversarial import generator_loss, hinge_discriminator_loss
from dove.losses.length import RunningThreshold, eos_loss, eos_weight
from dove.losses.perceptual import make_perceptual
from dove.losses.reconstruction import reconstruction_loss, squared_error
from dove.metrics import psnr
from dove.models.discriminator import PatchDiscriminator
from dove.models.eos import EosScores
from dove.models.vqgan import VQGAN, Codebook
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.alignment import Alignment
from dove.training.codebook import Restarts
from dove.training.config import (
    AlignConfig,
    CodebookLossConfig,
    DoveTrainConfig,
    PrefixTrainConfig,
    ReconstructionLossConfig,
    VQGANTrainConfig,
)

Batch = TypeVar("Batch")
"""Batches of a training: images in [-1, 1], or images with whatever else its examples have."""

LEAST_DISTANCE = 1e-4
"""Least perceptual distance of which the logarithm is learned; shorter ones count as this."""


@dataclass(frozen=True)
class Step:
    """Position of a micro-batch in a run.

    Attributes:
        number: Training step, counted from 0.
        micro_batch: Micro-batch index over all processes of the step; random numbers of a step differ between them.
    """

    number: int
    micro_batch: int = 0

    def seed(self, run_seed: int) -> int:
        """Derive a seed from the run's seed and this position, so that a resumed run draws the same numbers."""
        return hash((run_seed, self.number, self.micro_batch)) % 2**63


@dataclass(frozen=True)
class StepResult:
    """Result of one batch.

    Attributes:
        loss: Scalar to minimise.
        reconstruction: Reconstructed images with gradients, from which the discriminator learns.
        metrics: Numbers for the log, without gradients.
    """

    loss: Float[Tensor, ""]
    reconstruction: Float[Tensor, "B 3 S S"]
    metrics: dict[str, Tensor]


class Objective(nn.Module, ABC, Generic[Batch]):
    """Model with its losses on batches of one type.

    Args:
        model: to train and save.
        loss: weights and networks of the reconstruction loss.

    Attributes:
        heads: what is trained along and thrown away afterwards, by name.
        kept: what a resumed run needs besides the model, by name; each has a ``state_dict``.
    """

    some_unused: ClassVar[bool] = False
    """True where some trained parameters have no part in some steps."""

    def __init__(self, model: nn.Module, loss: ReconstructionLossConfig):
        super().__init__()
        self.model = model
        self.loss = loss
        self.perceptual = make_perceptual(loss.perceptual_network, loss.perceptual_weights) if loss.perceptual else None
        if self.perceptual:  # channels last: its pooling is several times faster that way on a CPU
            self.perceptual.to(memory_format=torch.channels_last)
        self.discriminator = PatchDiscriminator(loss.discriminator) if loss.gan else None
        self.heads = nn.ModuleDict()
        self.kept: dict[str, Any] = {}

    @abstractmethod
    def forward(self, batch: Batch, step: Step) -> StepResult:
        """Compute the loss of a batch.

        Args:
            batch: Examples on the model's device, images in [-1, 1].
            step: Position of the batch in the run.
        """

    @abstractmethod
    def previews(self, model: nn.Module, images: Float[Tensor, "B 3 S S"]) -> dict[str, Float[Tensor, "B 3 S S"]]:
        """Reconstruct held-out images in [-1, 1] with ``model`` (the moving average), by a short label."""

    def trained(self) -> list[nn.Parameter]:
        """List the parameters that the loss trains: the model's and the heads'."""
        both = (*self.model.parameters(), *self.heads.parameters())
        return [parameter for parameter in both if parameter.requires_grad]

    def adversary_loss(self, batch: Any, reconstruction: Float[Tensor, "B 3 S S"]) -> Float[Tensor, ""]:
        """Compute the discriminator's loss on a batch, of images or with ``images`` in it, and its reconstruction."""
        assert self.discriminator is not None
        images: Tensor = getattr(batch, "images", batch)
        return hinge_discriminator_loss(self.discriminator(images), self.discriminator(reconstruction.detach()))

    def distortion(self, mse: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Compute the first term of the reconstruction loss from the squared error."""
        return mse

    def reconstruction_terms(
        self,
        reconstruction: Float[Tensor, "B 3 S S"],
        images: Float[Tensor, "B 3 S S"],
        view: tuple[Float[Tensor, "B 3 s s"], Float[Tensor, "B 3 s s"]] | None = None,
    ) -> dict[str, Float[Tensor, " B"]]:
        """Compute Eq. 2 per image under the key ``rec``, and its unweighted parts.

        Args:
            reconstruction: in [-1, 1]; gradients flow into it.
            images: in [-1, 1].
            view: parts of both that the perceptual network compares in their place.
        """
        mse = squared_error(reconstruction, images)
        nothing = torch.zeros_like(mse)
        pair = [part.contiguous(memory_format=torch.channels_last) for part in view or (reconstruction, images)]
        perceptual = self.perceptual(*pair) if self.perceptual else nothing
        gan = generator_loss(self.discriminator(reconstruction)) if self.discriminator is not None else nothing
        weights = self.loss.mse, self.loss.perceptual, self.loss.gan
        rec = reconstruction_loss(self.distortion(mse), perceptual, gan, weights)
        return {"rec": rec, "mse": mse, "perceptual": perceptual, "gan": gan}

    def compare(self, reconstruction: Float[Tensor, "B 3 S S"], images: Float[Tensor, "B 3 S S"]) -> StepResult:
        """Compute Eq. 2 alone, averaged over a batch; both in [-1, 1]."""
        terms = self.reconstruction_terms(reconstruction, images)
        return StepResult(terms["rec"].mean(), reconstruction, means(terms))


class CodebookObjective(Objective[Tensor]):
    """Base of the objectives of models with a codebook of ``size`` entries in the data path.

    An entry moves after ``codebook.restart_after`` batches without use.
    """

    def __init__(self, model: nn.Module, loss: ReconstructionLossConfig, codebook: CodebookLossConfig, size: int):
        super().__init__(model, loss)
        self.codebook_weight = codebook.codebook
        self.restarts = Restarts(size, codebook.restart_after)
        self.kept["restarts"] = self.restarts

    def with_codebook(
        self,
        result: StepResult,
        codebook: Codebook,
        loss: Float[Tensor, ""],
        latents: Float[Tensor, "B L D"],
        ids: Int[Tensor, "B L"],
    ) -> StepResult:
        """Add the codebook's own loss to the result of a batch, and move entries that lie idle to some of its latents.

        These are the latents as they are compared with the entries, and ``ids`` those that they chose.
        """
        moved = self.restarts.step(codebook.embedding.weight, latents, ids)
        counts = {"codes_used": ids.unique().numel(), "codes_moved": moved}
        metrics = {"codebook": loss.detach()} | {name: torch.tensor(float(count)) for name, count in counts.items()}
        return StepResult(
            result.loss + self.codebook_weight * loss, result.reconstruction, {**result.metrics, **metrics}
        )


class VQGANObjective(CodebookObjective):
    """Objective of the VQGAN stage: Eq. 2 on the decoded image, and the codebook's own loss."""

    model: VQGAN

    def __init__(self, config: VQGANTrainConfig, model: VQGAN):
        super().__init__(model, config.loss, config.loss, model.config.codebook_size)
        self.config = config

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the loss of a batch of images in [-1, 1]; it is the same at every step."""
        quantized = self.model.quantize(self.model.encode(batch))
        # The first images of a batch keep their continuous latents; batches are shuffled, so which ones is random.
        continuous = round(self.config.loss.continuous * len(batch))
        mixed = torch.cat([quantized.latents[:continuous], quantized.values[continuous:]])
        result = self.compare(self.model.decode(mixed), batch)
        return self.with_codebook(result, self.model.quantize, quantized.loss, quantized.latents, quantized.ids)

    def previews(self, model: nn.Module, images: Float[Tensor, "B 3 S S"]) -> dict[str, Float[Tensor, "B 3 S S"]]:
        """Reconstruct images from the latents themselves and from their codebook entries."""
        assert isinstance(model, VQGAN)
        latents = model.encode(images)
        return {"continuous": model.decode(latents), "quantized": model.decode(model.quantize(latents).values)}


class TokenizerObjective(Objective[Batch]):
    """Base of the objectives of the whole tokenizer."""

    model: Dove

    def __init__(self, model: Dove, loss: ReconstructionLossConfig):
        super().__init__(model, loss)
        if isinstance(model.vqgan, VQGAN):  # its codebook lies beside DOVE's path and would wait for gradients in vain
            model.vqgan.quantize.requires_grad_(False)

    def previews(self, model: nn.Module, images: Float[Tensor, "B 3 S S"]) -> dict[str, Float[Tensor, "B 3 S S"]]:
        """Reconstruct images from powers of four tokens, from all of them, and at the predicted lengths."""
        assert isinstance(model, Dove)
        output = model.generate(images)
        capacity = model.config.max_tokens
        powers = [4**n for n in range(capacity.bit_length()) if 4**n < capacity]
        lengths = {str(k): torch.full((len(images),), k) for k in (*powers, capacity)}
        lengths["auto"] = Auto().lengths(output.eos)
        return {
            label: model.reconstruct_from(Tokens.cut(output.values, cut.to(images.device)))
            for label, cut in lengths.items()
        }


class EOSObjective(TokenizerObjective[Batch]):
    """Base of the paper's objectives, which move EOS by Eq. 3 against a running threshold."""

    def __init__(self, config: DoveTrainConfig, model: Dove):
        super().__init__(model, config.loss)
        self.config = config
        self.threshold = RunningThreshold(config.loss.threshold_window)
        self.kept["threshold"] = self.threshold

    def eos_weight(self, step: Step) -> float:
        """Compute lambda_eos at a step of the run."""
        loss = self.config.loss
        return eos_weight(step.number / self.config.run.steps, loss.eos, delay=loss.eos_delay, ramp=loss.eos_ramp)


class DoveObjective(EOSObjective[Tensor]):
    """Table 1: reconstruct from the tokens before the predicted EOS, and move EOS by Eq. 3."""

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the loss of a batch of images in [-1, 1] at their predicted lengths."""
        output = self.model.generate(batch)
        lengths = Auto().lengths(output.eos)
        reconstruction = self.model.reconstruct_from(Tokens.cut(output.sample(), lengths))
        terms = self.reconstruction_terms(reconstruction, batch)
        rec = terms["rec"]
        eos = eos_loss(output.eos.probability, lengths, rec, self.threshold.step(rec, step.number)).mean()
        divergence = output.divergence().mean()
        loss = self.config.loss.rec * rec.mean() + self.eos_weight(step) * eos + self.config.loss.kl * divergence
        metrics = means(terms | {"eos": eos, "kl": divergence, "length": lengths.float()})
        return StepResult(loss, reconstruction, metrics | {"length_std": lengths.float().std(correction=0)})


class RandomPrefixObjective(TokenizerObjective[Batch]):
    """Base of the objectives of DOVE+, which reconstruct from random numbers of tokens."""

    def __init__(self, config: PrefixTrainConfig, model: Dove):
        super().__init__(model, config.loss)
        self.config = config
        align = config.loss.align
        self.alignment = None if align.network == "none" else Alignment(align, model.config)
        if self.alignment:
            self.heads = self.alignment.heads
        self.kept["heads"] = self.heads

    def distortion(self, mse: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Compute the logarithm of the squared error, in which a gain of 1% counts alike at every length."""
        return (mse + self.config.loss.least_mse).log()

    def draws(self, step: Step) -> torch.Generator:
        """Make a source of random numbers that is the same whenever a run comes to this step."""
        return torch.Generator().manual_seed(step.seed(self.config.run.seed))


class PrefixObjective(RandomPrefixObjective[Tensor]):
    """DOVE+: reconstruct from a random number of tokens, predict the quality, and align with a frozen network."""

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the loss of a batch of images in [-1, 1] at random lengths."""
        loss, draws = self.config.loss, self.draws(step)
        lengths = draw_lengths(len(batch), self.model.max_tokens, loss.caps, loss.cap_shares, draws)
        lengths = lengths.to(batch.device)
        output = self.model.generate(batch, int(lengths.max()))
        tokens = Tokens.cut(output.sample(), lengths)
        reconstruction = self.model.reconstruct_from(tokens)
        terms = self.reconstruction_terms(reconstruction, batch, random_view(reconstruction, batch, loss.view, draws))
        errors = prediction_errors(output.eos, lengths, psnr(reconstruction.detach(), batch), terms["perceptual"])
        aligned = self.alignment(output, tokens, batch) if self.alignment else {}
        total = terms["rec"].mean() + loss.quality * sum(error.square().mean() for error in errors.values())
        divergence = output.divergence().mean()
        total = total + weighted_alignment(aligned, loss.align) + loss.kl * divergence
        return StepResult(total, reconstruction, means(terms | aligned | {"kl": divergence}) | in_decibels(errors))


def draw_lengths(
    count: int, capacity: int, caps: Sequence[int], shares: Sequence[float], draws: torch.Generator
) -> Int[Tensor, " count"]:
    """Draw log-uniform lengths up to a cap that all of them share.

    Every length is as likely for every image, but those of a step lie evenly within the range: they never all happen to be
    short.
    """
    chosen = int(torch.multinomial(torch.tensor(shares), 1, generator=draws))
    cap = min(caps[chosen], capacity)
    places = (torch.randperm(count, generator=draws) + torch.rand(count, generator=draws)) / count
    return (places * math.log(cap + 1)).exp().long().clamp(1, cap)


def weighted_alignment(distances: Mapping[str, Float[Tensor, ""]], weights: AlignConfig) -> Tensor:
    """Add up the distances of an alignment, as many as there are, with their weights."""
    parts = ((weights.tokens if name == "align_tokens" else weights.weight) * distances[name] for name in distances)
    return sum(parts, start=torch.zeros(()))


def prediction_errors(
    eos: EosScores, lengths: Int[Tensor, " B"], reached: Float[Tensor, " B"], perceptual: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, " B"]]:
    """Compute predicted minus measured quality, in bels (powers of ten), of whatever the head predicts.

    Args:
        eos: scores of the images.
        lengths: numbers of tokens that they were rebuilt from.
        reached: PSNR in dB.
        perceptual: perceptual distances.
    """
    assert eos.quality is not None
    place = lengths[:, None] - 1
    errors = {"quality": (eos.quality.gather(1, place)[:, 0] - reached) / 10}
    if eos.perceptual is not None:
        measured = perceptual.detach().clamp(min=LEAST_DISTANCE)
        errors["distance"] = eos.perceptual.gather(1, place)[:, 0].log10() - measured.log10()
    return errors


def random_view(
    reconstruction: Float[Tensor, "B 3 S S"], images: Float[Tensor, "B 3 S S"], pixels: int, draws: torch.Generator
) -> tuple[Float[Tensor, "B 3 s s"], Float[Tensor, "B 3 s s"]]:
    """Cut the same random square, smaller by ``pixels``, out of both batches, mirrored half of the time; 0 cuts nothing."""
    if pixels:
        upper, left = torch.randint(0, pixels + 1, (2,), generator=draws).tolist()
        side = images.shape[-1] - pixels
        window = slice(upper, upper + side), slice(left, left + side)
        reconstruction, images = reconstruction[..., *window], images[..., *window]
        if torch.rand((), generator=draws) < 0.5:
            reconstruction, images = reconstruction.flip(3), images.flip(3)
    return reconstruction, images


def means(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average terms of a loss for the log."""
    return {name: term.detach().mean() for name, term in terms.items()}


def in_decibels(errors: Mapping[str, Float[Tensor, " B"]]) -> dict[str, Tensor]:
    """Average the sizes of :func:`prediction_errors` for the log."""
    return {f"{name}_error_db": 10 * error.detach().abs().mean() for name, error in errors.items()}
