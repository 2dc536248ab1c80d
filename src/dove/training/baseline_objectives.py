"""Objectives of the baselines."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.adapter import FixedLength
from dove.baselines.alit import ALIT
from dove.baselines.titok import TiTok, TwoStageTiTok
from dove.baselines.vqgan import MaskgitTokenizer
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    PaintingTrainConfig,
    QuantizedTrainConfig,
    TwoStageTrainConfig,
)
from dove.training.config import ReconstructionLossConfig
from dove.training.initialisation import load_teacher
from dove.training.objectives import CodebookObjective, Objective, Step, StepResult, means

NO_PIXELS = ReconstructionLossConfig(mse=0.0, perceptual=0.0, gan=0.0, perceptual_network="none")
LABEL_SMOOTHING = 0.1
"""Smoothing of the labels in the cross-entropy of codes, as in both two-stage models' published training."""


def code_loss(logits: Float[Tensor, "B N V"], codes: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the VQGAN's codes, averaged over images and positions."""
    return F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten(), label_smoothing=LABEL_SMOOTHING)


class RivalPreviews:
    """Previews of all rivals, whatever their objective is."""

    def previews(self, model: nn.Module, images: Float[Tensor, "B 3 S S"]) -> dict[str, Float[Tensor, "B 3 S S"]]:
        """Reconstruct images from all of their tokens, or from those of the first, the middle and the last roll-out."""
        if isinstance(model, ALIT):
            roll_outs = list(model.roll_outs(images))
            chosen = sorted({0, (len(roll_outs) - 1) // 2, len(roll_outs) - 1})
            return {
                str(roll_outs[index].values.shape[1]): model.reconstruct_from(roll_outs[index].logits)
                for index in chosen
            }
        assert isinstance(model, FixedLength)
        return {str(model.max_tokens): model.reconstruct_from(model.quantized_values(images))}


class QuantizedObjective(RivalPreviews, CodebookObjective):
    """Eq. 2 on the image rebuilt from codebook entries, with the codebook's loss, end to end."""

    model: TiTok | MaskgitTokenizer

    def __init__(self, config: QuantizedTrainConfig, model: TiTok | MaskgitTokenizer):
        super().__init__(model, config.loss, model.codebook.size, config.loss.restart_after)
        self.config = config

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute Eq. 2 and the codebook's loss of a batch of images in [-1, 1]; they are the same at every step."""
        quantized = self.model.quantized_images(batch)
        reconstruction = self.model.reconstruct_from(quantized.values)
        terms = self.reconstruction_terms(reconstruction, batch)
        loss = terms["rec"].mean() + self.config.loss.codebook * quantized.loss
        usage = self.keep_in_use(self.model.codebook.embedding.weight, quantized.latents, quantized.ids)
        return StepResult(loss, reconstruction, {**means(terms), "codebook": quantized.loss.detach(), **usage})


class CodesObjective(RivalPreviews, CodebookObjective):
    """Stage one: the codes of a frozen VQGAN from the tokens, without pixels."""

    config: TwoStageTrainConfig

    def result(
        self,
        images: Float[Tensor, "B 3 S S"],
        entropy: Float[Tensor, ""],
        codebook: Float[Tensor, ""],
        usage: dict[str, Tensor],
    ) -> StepResult:
        """Combine the losses of a step, which reconstructs no images."""
        metrics = {"codes": entropy.detach(), "codebook": codebook.detach(), **usage}
        return StepResult(entropy + self.config.loss.codebook * codebook, images, metrics)


class TiTokCodesObjective(CodesObjective):
    """Stage one of TiTok, with the tokens of the whole image."""

    model: TwoStageTiTok

    def __init__(self, config: TwoStageTrainConfig, model: TwoStageTiTok):
        super().__init__(model, NO_PIXELS, model.codebook.size, config.loss.restart_after)
        self.config = config
        self.teacher = load_teacher(config.vqgan_checkpoint, model.config.vqgan).requires_grad_(False)
        model.pixel_decoder.requires_grad_(False)
        model.pixel_quantize.requires_grad_(False)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the cross-entropy of the codes of a batch of images in [-1, 1]; it is the same at every step."""
        with torch.no_grad():
            codes = self.teacher.quantize(self.teacher.encode((batch + 1) / 2)).ids
        quantized = self.model.quantized_images(batch)
        entropy = code_loss(self.model.decoder(quantized.values), codes)
        usage = self.keep_in_use(self.model.codebook.embedding.weight, quantized.latents, quantized.ids)
        return self.result(batch, entropy, quantized.loss, usage)


class ALITCodesObjective(CodesObjective):
    """Stage one of ALIT, with the tokens of every roll-out, averaged over roll-outs."""

    model: ALIT
    config: ALITCodesTrainConfig

    def __init__(self, config: ALITCodesTrainConfig, model: ALIT):
        super().__init__(model, NO_PIXELS, model.quantize.size, config.loss.restart_after)
        self.config = config
        model.base_tokenizer.requires_grad_(False)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the cross-entropy of the codes of a batch of images in [-1, 1] over this step's roll-outs."""
        count = None if self.config.roll_outs == "all" else draw_count(self.model, self.config.run.seed, step.number)
        roll_outs = list(self.model.roll_outs(batch, count))
        entropy = torch.stack([code_loss(roll_out.logits, roll_out.codes) for roll_out in roll_outs]).mean()
        codebook = torch.stack([roll_out.loss for roll_out in roll_outs]).mean()
        latents = torch.cat([self.model.quantize.prepare(roll_out.latents) for roll_out in roll_outs], 1)
        ids = torch.cat([roll_out.ids for roll_out in roll_outs], 1)
        usage = self.keep_in_use(self.model.quantize.embedding.weight, latents, ids)
        return self.result(batch, entropy, codebook, usage)


class PaintingObjective(RivalPreviews, Objective[Tensor]):
    """Stage two: Eq. 2 on the image, with everything fixed but the ``painters``, modules or parameters of the model."""

    def __init__(self, config: PaintingTrainConfig, model: nn.Module, painters: Sequence[nn.Module | nn.Parameter]):
        super().__init__(model, config.loss)
        self.config = config
        model.requires_grad_(False)
        for part in painters:
            part.requires_grad_(True)

    @abstractmethod
    def paint(self, images: Float[Tensor, "B 3 S S"], step: Step) -> Float[Tensor, "B 3 S S"]:
        """Reconstruct images from their tokens, with gradients into the painters."""

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute Eq. 2 of a batch of images in [-1, 1]."""
        reconstruction = self.paint(batch, step)
        terms = self.reconstruction_terms(reconstruction, batch)
        return StepResult(terms["rec"].mean(), reconstruction, means(terms))


class TiTokPixelsObjective(PaintingObjective):
    """Stage two of TiTok: its decoder and the VQGAN's."""

    model: TwoStageTiTok

    def __init__(self, config: PaintingTrainConfig, model: TwoStageTiTok):
        super().__init__(config, model, [model.decoder, model.pixel_decoder])

    def paint(self, images: Float[Tensor, "B 3 S S"], step: Step) -> Float[Tensor, "B 3 S S"]:
        """Reconstruct images from all of their tokens, the same way at every step."""
        with torch.no_grad():
            values = self.model.quantized_values(images)
        return self.model.reconstruct_from(values)


class ALITPixelsObjective(PaintingObjective):
    """Stage two of ALIT: its decoder, with the embeddings, and the VQGAN's, at a number of roll-outs drawn for every step."""

    model: ALIT

    def __init__(self, config: PaintingTrainConfig, model: ALIT):
        embeddings = [model.decoder_class_embedding, model.decoder_positional_embedding, model.decoder_mask_token]
        super().__init__(config, model, [model.decoder, *embeddings, model.base_tokenizer.decoder])

    def paint(self, images: Float[Tensor, "B 3 S S"], step: Step) -> Float[Tensor, "B 3 S S"]:
        """Reconstruct images from the tokens of a number of roll-outs that is drawn for the step."""
        count = draw_count(self.model, self.config.run.seed, step.number)
        with torch.no_grad():
            values = list(self.model.roll_outs(images, count))[-1].values
        kept = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return self.model.reconstruct_from(self.model.logits(values, kept))


def draw_count(model: ALIT, seed: int, step: int) -> int:
    """Draw a number of roll-outs, the same one whenever a run comes to this step."""
    draws = torch.Generator().manual_seed(hash((seed, step)) % 2**63)
    return int(torch.randint(1, model.config.num_rollouts + 1, (), generator=draws))
