"""Objectives of the baselines."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.adapter import FixedLength
from dove.baselines.alit import ALIT
from dove.baselines.maskgit_vqgan import mix_codes
from dove.baselines.titok import TiTok, TwoStageTiTok
from dove.baselines.vqgan import MaskgitTokenizer
from dove.models.vqgan import Codebook
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    QuantizedTrainConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
)
from dove.training.config import ReconstructionLossConfig
from dove.training.initialisation import load_teacher
from dove.training.objectives import CodebookObjective, Objective, Step, StepResult, means

ROLL_OUT_WEIGHTS = (2.5, 2.0, 1.5, 1.25)
"""Weights of the cross-entropy of ALIT's first roll-outs, as in its published training; later ones have 1."""

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
        super().__init__(model, config.loss, config.loss, model.codebook.size)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute Eq. 2 and the codebook's loss of a batch of images in [-1, 1]; they are the same at every step."""
        quantized = self.model.quantized_images(batch)
        result = self.compare(self.model.reconstruct_from(quantized.values), batch)
        return self.with_codebook(result, self.model.codebook, quantized.loss, quantized.latents, quantized.ids)


class TiTokCodesObjective(RivalPreviews, CodebookObjective):
    """Stage one of TiTok, with the tokens of the whole image."""

    model: TwoStageTiTok

    def __init__(self, config: TiTokCodesTrainConfig, model: TwoStageTiTok):
        super().__init__(model, NO_PIXELS, config.loss, model.codebook.size)
        self.teacher = load_teacher(config.vqgan_checkpoint, model.config.vqgan).requires_grad_(False)
        model.pixel_decoder.requires_grad_(False)
        model.pixel_quantize.requires_grad_(False)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the cross-entropy of the codes of a batch of images in [-1, 1]; it is the same at every step."""
        with torch.no_grad():
            codes = self.teacher.quantize(self.teacher.encode(batch)).ids
        quantized = self.model.quantized_images(batch)
        entropy = code_loss(self.model.decoder(quantized.values), codes)
        result = StepResult(entropy, batch, means({"codes": entropy}))
        return self.with_codebook(result, self.model.codebook, quantized.loss, quantized.latents, quantized.ids)


class ALITCodesObjective(RivalPreviews, CodebookObjective):
    """Stage one of ALIT, with the tokens of every roll-out, averaged over roll-outs.

    As in the published training, each roll-out has the cross-entropy of the codes, weighted by ``ROLL_OUT_WEIGHTS``, and the
    squared error of the mean code under the logits.
    """

    model: ALIT
    config: ALITCodesTrainConfig
    some_unused = True  # those of later roll-outs and of halting, where few roll-outs are drawn

    def __init__(self, config: ALITCodesTrainConfig, model: ALIT):
        super().__init__(model, NO_PIXELS, config.loss, model.quantize.size)
        self.config = config
        model.base_tokenizer.requires_grad_(False)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute the loss of the codes of a batch of images in [-1, 1] over this step's roll-outs."""
        count = None if self.config.roll_outs == "all" else draw_count(self.model, self.config.run.seed, step.number)
        roll_outs = list(self.model.roll_outs(batch, count))
        entropies = torch.stack([code_loss(roll_out.logits, roll_out.codes) for roll_out in roll_outs])
        weights = entropies.new_tensor([*ROLL_OUT_WEIGHTS, *[1.0] * len(roll_outs)][: len(roll_outs)])
        codes = self.model.base_tokenizer.quantize
        error = torch.stack([mean_code_error(roll_out.logits, roll_out.codes, codes) for roll_out in roll_outs]).mean()
        codebook = torch.stack([roll_out.loss for roll_out in roll_outs]).mean()
        latents = torch.cat([self.model.quantize.prepare(roll_out.latents) for roll_out in roll_outs], 1)
        ids = torch.cat([roll_out.ids for roll_out in roll_outs], 1)
        loss = (weights * entropies).mean() + error
        result = StepResult(loss, batch, means({"codes": entropies, "mean_code": error}))
        return self.with_codebook(result, self.model.quantize, codebook, latents, ids)


class TiTokPixelsObjective(RivalPreviews, Objective[Tensor]):
    """Stage two of TiTok: Eq. 2 on the image, from its decoder and the VQGAN's; all that decides the tokens is fixed."""

    model: TwoStageTiTok

    def __init__(self, config: TiTokPixelsTrainConfig, model: TwoStageTiTok):
        super().__init__(model, config.loss)
        model.requires_grad_(False)
        model.decoder.requires_grad_(True)
        model.pixel_decoder.requires_grad_(True)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute Eq. 2 of a batch of images in [-1, 1]; it is the same at every step."""
        with torch.no_grad():
            values = self.model.quantized_values(batch)
        return self.compare(self.model.reconstruct_from(values), batch)


class ALITPixelsObjective(RivalPreviews, CodebookObjective):
    """Stage two of ALIT: Eq. 2 on the image of one roll-out, drawn for every step, through everything but the VQGAN's codes."""

    model: ALIT
    some_unused = True  # those of later roll-outs

    def __init__(self, config: ALITPixelsTrainConfig, model: ALIT):
        super().__init__(model, config.loss, config.loss, model.quantize.size)
        self.config = config
        model.base_tokenizer.encoder.requires_grad_(False)
        model.base_tokenizer.quantize.requires_grad_(False)
        model.encoder_mask_token.requires_grad_(False)

    def forward(self, batch: Float[Tensor, "B 3 S S"], step: Step) -> StepResult:
        """Compute Eq. 2 and the codebook's loss of a batch of images in [-1, 1]."""
        last = self.model.last_roll_out(batch, draw_count(self.model, self.config.run.seed, step.number))
        result = self.compare(self.model.reconstruct_from(last.logits), batch)
        latents = self.model.quantize.prepare(last.latents)
        return self.with_codebook(result, self.model.quantize, last.loss, latents, last.ids)


def mean_code_error(logits: Float[Tensor, "B N V"], codes: Int[Tensor, "B N"], codebook: Codebook) -> Float[Tensor, ""]:
    """Compute the mean squared error of the mean code under the logits."""
    return F.mse_loss(mix_codes(logits, codebook.entries()).float(), codebook.lookup(codes))


def draw_count(model: ALIT, seed: int, step: int) -> int:
    """Draw a number of roll-outs, the same one whenever a run comes to this step."""
    draws = torch.Generator().manual_seed(hash((seed, step)) % 2**63)
    return int(torch.randint(1, model.config.num_rollouts + 1, (), generator=draws))
