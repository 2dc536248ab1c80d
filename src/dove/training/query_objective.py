"""Objectives of Q-DOVE (section 2.3): detail in the regions that a query asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.data.query_batch import QueryBatch
from dove.lengths import Auto
from dove.losses.length import RunningThreshold, eos_loss
from dove.losses.query import (
    early_end_penalty,
    inside_boxes,
    irrelevant_loss,
    masked_squared_error,
    mean_by_sample,
    relevant_loss,
)
from dove.metrics import decibels
from dove.query.tokenizer import QDove
from dove.query.words import NULL, QueryTokens, is_null
from dove.tokens import Tokens
from dove.training.objectives import (
    EOSObjective,
    RandomPrefixObjective,
    Step,
    StepResult,
    draw_lengths,
    in_decibels,
    means,
    prediction_errors,
    random_view,
)
from dove.training.query_config import QDoveTrainConfig, QueryPrefixTrainConfig


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries of a batch, one for each image.

    Attributes:
        query: Words of each query; none for null.
        boxes: Boxes as x, y, width, height in pixels; the whole image for null and for what is not there.
        image_of: Index of each box's image.
        about_part: True for images with boxes that answer the query.
    """

    query: QueryTokens
    boxes: Float[Tensor, "M 4"]
    image_of: Int[Tensor, " M"]
    about_part: Bool[Tensor, " B"]


def pick_queries(batch: QueryBatch, model: QDove, null: float) -> Asked:
    """Pick one of each image's queries at random, and put "null" in the place of a share ``null`` of them."""
    device = batch.images.device
    order = torch.rand(len(batch.queries)).argsort().tolist()
    images = batch.image_of.tolist()
    chosen = {images[number]: number for number in order}  # of an image's queries the last one in this order
    replaced = (torch.rand(len(batch)) < null).tolist()
    words = [NULL if gone else batch.queries[chosen[image]] for image, gone in enumerate(replaced)]
    query = model.query_tokens(words)
    row = torch.tensor([chosen[image] for image in range(len(batch))], device=device)
    about_part = torch.isin(row, batch.query_of) & torch.tensor([not is_null(text) for text in words], device=device)
    kept = torch.isin(batch.query_of, row[about_part])
    side = float(batch.images.shape[-1])
    whole = torch.tensor([[0.0, 0.0, side, side]], device=device).expand(int((~about_part).sum()), -1)
    boxes = torch.cat([batch.boxes[kept], whole])
    image_of = torch.cat([batch.image_of[batch.query_of[kept]], (~about_part).nonzero()[:, 0]])
    return Asked(query, boxes, image_of, about_part)


class QDoveObjective(EOSObjective[QueryBatch]):
    """Table 1 with Eq. 5 to 7 in the place of Eq. 2."""

    model: QDove
    config: QDoveTrainConfig

    def __init__(self, config: QDoveTrainConfig, model: QDove):
        super().__init__(config, model)
        self.irrelevant_threshold = RunningThreshold(config.loss.threshold_window)
        self.kept["irrelevant_threshold"] = self.irrelevant_threshold

    def forward(self, batch: QueryBatch, step: Step) -> StepResult:
        """Compute Eq. 5 to 7 on images and queries at their predicted lengths."""
        images, loss = batch.images, self.config.loss
        asked = pick_queries(batch, self.model, loss.null)
        output = self.model.generate_for(images, asked.query)
        lengths = Auto().lengths(output.eos)
        reconstruction = self.model.reconstruct_from(Tokens.cut(output.sample(), lengths))
        relevant = relevant_loss(
            reconstruction, images, asked.boxes, asked.image_of, lambda *pair: self.reconstruction_terms(*pair)["rec"]
        )
        irrelevant = irrelevant_loss(reconstruction, images, asked.boxes, asked.image_of)
        threshold = self.threshold.step(relevant, step.number)
        eos = eos_loss(output.eos.probability, lengths, relevant, threshold).mean()
        # A batch of nulls alone has no mean here, and the threshold leaves out a mean that is not finite.
        threshold = self.irrelevant_threshold.step(irrelevant[asked.about_part], step.number)
        penalty = early_end_penalty(output.eos.probability, lengths, irrelevant, threshold)
        penalty = (penalty * asked.about_part).mean()
        weight = self.eos_weight(step)
        total = loss.rec * (relevant.mean() + loss.irrelevant * irrelevant.mean()) + weight * (eos + penalty)
        metrics = means({"rec": relevant, "irrelevant": irrelevant, "eos": eos, "penalty": penalty})
        return StepResult(total, reconstruction, metrics | _lengths_by_kind(lengths, asked))


class GroundingHead(nn.Linear):
    """Linear head that tells which cells of the grid are asked for, from hidden states in front of the last block.

    The timestamps of the last block read those states; what only the block itself finds out would come too late for them.
    """

    def __init__(self, model: QDove):
        super().__init__(model.config.generator.hidden_size, 1)
        self.cells = model.config.vqgan.grid_size

    @contextmanager
    def watching(self, model: QDove, words: int) -> Iterator[list[Float[Tensor, "B N H"]]]:
        """Collect the grid's hidden states, behind a query's words, in front of the model's last block, as it generates."""
        states: list[Tensor] = []
        last, grid = model.generator.transformer.layers[-1], slice(words, words + self.cells**2)
        handle = last.register_forward_pre_hook(lambda _block, inputs: states.append(inputs[0][:, grid]))
        try:
            yield states
        finally:
            handle.remove()

    def loss(
        self, hidden: Float[Tensor, "B N H"], inside: Bool[Tensor, "B S S"], about_part: Bool[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Compute the cross entropy per cell, averaged over the images whose query is about a part; 0 without any.

        A cell is asked for by the share of its pixels that are inside.
        """
        share = F.adaptive_avg_pool2d(inside[:, None].float(), self.cells).flatten(1)
        scores = self(hidden)[..., 0].float()
        entropy = F.binary_cross_entropy_with_logits(scores, share, reduction="none").mean(1)
        return (entropy * about_part).sum() / about_part.sum().clamp(min=1)


class QueryPrefixObjective(RandomPrefixObjective[QueryBatch]):
    """Reconstruct the region of a query from a random number of tokens, and predict the quality inside it."""

    model: QDove
    config: QueryPrefixTrainConfig

    def __init__(self, config: QueryPrefixTrainConfig, model: QDove):
        super().__init__(config, model)
        self.grounding = self.heads["grounding"] = GroundingHead(model)

    def forward(self, batch: QueryBatch, step: Step) -> StepResult:
        """Compute the loss of images and queries at random lengths."""
        images, loss = batch.images, self.config.loss
        asked = pick_queries(batch, self.model, loss.null)
        draws = self.draws(step)
        lengths = draw_lengths(len(images), self.model.max_tokens, loss.caps, loss.cap_shares, draws).to(images.device)
        with self.grounding.watching(self.model, asked.query.ids.shape[1]) as states:
            output = self.model.generate_for(images, asked.query, int(lengths.max()))
        reconstruction = self.model.reconstruct_from(Tokens.cut(output.sample(), lengths))
        perceptual: list[Tensor] = []

        def eq2(boxes: Tensor, targets: Tensor) -> Tensor:
            terms = self.reconstruction_terms(boxes, targets, random_view(boxes, targets, loss.view, draws))
            perceptual.append(mean_by_sample(terms["perceptual"], asked.image_of, len(images)))
            return terms["rec"]

        relevant = relevant_loss(reconstruction, images, asked.boxes, asked.image_of, eq2)
        irrelevant = irrelevant_loss(reconstruction, images, asked.boxes, asked.image_of)
        inside = inside_boxes(asked.boxes, asked.image_of, len(images), images.shape[-1])
        reached = psnr_inside(reconstruction.detach(), images, inside)
        errors = prediction_errors(output.eos, lengths, reached, perceptual[0])
        total = relevant.mean() + loss.irrelevant * irrelevant.mean()
        total = total + loss.quality * sum(error.square().mean() for error in errors.values())
        grounding = self.grounding.loss(states[0], inside, asked.about_part)
        total = total + loss.grounding * grounding
        metrics = means({"rec": relevant, "irrelevant": irrelevant, "grounding": grounding})
        return StepResult(total, reconstruction, metrics | in_decibels(errors))


def psnr_inside(
    reconstruction: Float[Tensor, "B 3 S S"], images: Float[Tensor, "B 3 S S"], inside: Bool[Tensor, "B S S"]
) -> Float[Tensor, " B"]:
    """Compute the PSNR in dB over the pixels inside."""
    return decibels(masked_squared_error(reconstruction.clamp(-1, 1), images, inside) / 4)


def _lengths_by_kind(lengths: Int[Tensor, " B"], asked: Asked) -> dict[str, Tensor]:
    numbers, part = lengths.float(), asked.about_part
    return {
        "length": numbers.mean(),
        "length_asked": (numbers * part).sum() / part.sum().clamp(min=1),
        "length_whole": (numbers * ~part).sum() / (~part).sum().clamp(min=1),
    }
