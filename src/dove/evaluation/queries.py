"""Effect of a query (section 2.3, Figure 7): quality inside and outside of its region, and number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from dove.data.progress_bar import ProgressBar
from dove.data.query_batch import QueryBatch, QueryExample
from dove.errors import UserError
from dove.losses.query import inside_boxes, masked_squared_error, whole_pixels
from dove.metrics import decibels, psnr
from dove.photos.picture import Cell, encode_picture, side_by_side
from dove.processor import ImageProcessor
from dove.query.tokenizer import QDove

if TYPE_CHECKING:
    from dove.lengths import LengthPolicy

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 192, 256)
GAIN_TOKENS = 8  # Number of tokens at which the summary compares a query with null and with a wrong one
KINDS = ("query", "null", "wrong")


@dataclass(frozen=True, eq=False)
class Scores:
    """PSNR in dB of Q objects by the three ``KINDS`` of query: the right one, null, and a wrong one.

    The wrong one is for something that is not in the image where there is such a query, else for another of its objects;
    NaN where there is neither.
    """

    lengths: tuple[int, ...]  # Numbers of tokens, rising; ``auto`` is the last of the L entries of a curve
    inside: Float[Tensor, "3 Q L"]  # Over the pixels of the query's boxes
    outside: Float[Tensor, "3 Q L"]  # Over all other pixels
    auto: Float[Tensor, "3 Q"]  # Number of tokens that ``auto`` gave
    whole: Float[Tensor, "B L"]  # Null over the whole image


def score_queries(model: QDove, scenes: Dataset[QueryExample], count: int, batch_size: int = 32) -> Scores:
    """Score the first ``count`` scenes of held-out data, and raise ``UserError`` where none has a region to measure."""
    lengths = tuple(k for k in LENGTHS if k <= model.max_tokens)
    parts = []
    for first in ProgressBar(range(0, count, batch_size), desc="queries", unit="batch"):
        rows = range(first, min(first + batch_size, count))
        parts.append(_score_batch(model, QueryBatch.collate([scenes[0, row] for row in rows]), lengths))
    inside, outside, auto, whole = zip(*parts, strict=True)
    scores = Scores(lengths, torch.cat(inside, 1), torch.cat(outside, 1), torch.cat(auto, 1), torch.cat(whole))
    if not scores.auto.shape[1]:
        raise UserError(
            f"none of the {count} images has a query with a box of a pixel or more at {model.image_size} x "
            f"{model.image_size} pixels; pass data with larger boxes"
        )
    return scores


@torch.no_grad()
def _score_batch(model: QDove, batch: QueryBatch, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    requests: list[int | str | LengthPolicy] = [*lengths, "auto"]
    count, side = len(batch.queries), batch.images.shape[-1]
    regions = inside_boxes(whole_pixels(batch.boxes, side), batch.query_of, count, side)
    answered = regions.flatten(1).any(1)
    image_of, region = batch.image_of[answered], regions[answered]
    wrong = wrong_queries(batch.image_of, answered)
    queries: list[list[str]] = [[] for _ in range(len(batch))]
    for query, image in zip(batch.queries, batch.image_of.tolist(), strict=True):
        queries[image].append(query)  # ``image_of`` rises, so their order stays
    nulls = model.encode_each(batch.images, requests)
    asked = model.encode_each(batch.images, requests, queries)
    inside, outside, whole = [], [], []
    for null, right in zip(nulls, asked, strict=True):
        plain, about = model.decode(null), model.decode(right)
        whole.append(psnr(plain, batch.images))
        rebuilt, originals = (about[answered], plain[image_of], about[wrong]), batch.images[image_of]
        inside.append(torch.stack([psnr_in(images, originals, region) for images in rebuilt]))
        outside.append(torch.stack([psnr_in(images, originals, ~region) for images in rebuilt]))
    of_null, of_query = nulls[-1].lengths.float(), asked[-1].lengths.float()  # the last request is auto
    auto = torch.stack([of_query[answered], of_null[image_of], of_query[wrong]])
    scores = torch.stack(inside, -1), torch.stack(outside, -1), auto
    for found in scores:
        found[KINDS.index("wrong"), wrong < 0] = torch.nan
    return *scores, torch.stack(whole, 1)


def wrong_queries(image_of: Int[Tensor, " N"], answered: Bool[Tensor, " N"]) -> Int[Tensor, " Q"]:
    """Choose a wrong query for each of the Q answered ones of the same image: an unanswered one, else the next; -1 without."""
    found = []
    for query in answered.nonzero()[:, 0].tolist():
        same = (image_of == image_of[query]).nonzero()[:, 0].tolist()
        absent = [other for other in same if not answered[other]]
        after = same[same.index(query) + 1 :] + same[: same.index(query)]
        found.append((absent or after or [-1])[0])
    return torch.tensor(found, dtype=torch.long)


def psnr_in(
    images: Float[Tensor, "Q 3 S S"], others: Float[Tensor, "Q 3 S S"], mask: Bool[Tensor, "Q S S"]
) -> Float[Tensor, " Q"]:
    """Compute the PSNR in dB over the pixels of a mask, (Q,); NaN where it is empty."""
    error = masked_squared_error(images.clamp(-1, 1), others.clamp(-1, 1), mask) / 4
    return torch.where(mask.flatten(1).any(1), decibels(error), torch.nan)


def tokens_needed(curves: Float[Tensor, "Q L"], lengths: Sequence[int], target: float) -> Float[Tensor, " Q"]:
    """Find the least of ``lengths`` whose PSNR is at least ``target``; the greatest where none is."""
    reached = curves >= target
    reached[:, -1] = True
    return torch.tensor(lengths, dtype=torch.float32)[reached.int().argmax(1)]


def tokens_for(curve: Float[Tensor, " L"], lengths: Sequence[int], target: float) -> float:
    """Find where a rising mean PSNR passes ``target``, in tokens, between its points by their logarithms.

    The first length where even that is enough, and the last one where none is.
    """
    values = curve.cummax(0).values.tolist()
    place = next((place for place, value in enumerate(values) if value >= target), len(values) - 1)
    if place == 0 or values[place] <= target:
        return float(lengths[place])
    share = (target - values[place - 1]) / (values[place] - values[place - 1])
    return float(lengths[place - 1] * (lengths[place] / lengths[place - 1]) ** share)


def summarise_queries(name: str, scores: Scores) -> list[dict[str, Any]]:
    """Make the rows of the report: one for each kind of query and number of tokens."""
    rows = []
    for kind, inside, outside, auto in zip(KINDS, scores.inside, scores.outside, scores.auto, strict=True):
        requests: list[int | str] = [*scores.lengths, "auto"]
        lengths = [*map(float, scores.lengths), auto.nanmean().item()]
        for place, (request, length) in enumerate(zip(requests, lengths, strict=True)):
            rows.append(
                {
                    "model": name,
                    "query": kind,
                    "num_tokens": request,
                    "mean_length": length,
                    "psnr_inside": inside[:, place].nanmean().item(),
                    "psnr_outside": outside[:, place].nanmean().item(),
                    "objects": int(inside[:, place].isfinite().sum()),
                }
            )
    return rows


def summarise_savings(name: str, scores: Scores, target: float) -> dict[str, Any]:
    """Compute the tokens until the region of the query reaches a quality, with the query and with null."""
    lengths = scores.lengths
    query, null, wrong = scores.inside
    needed, needed_null = (tokens_needed(curves[:, :-1], lengths, target).mean().item() for curves in (query, null))
    at = max(place for place, length in enumerate(lengths) if length <= GAIN_TOKENS)
    same = tokens_for(null[:, :-1].nanmean(0), lengths, query[:, at].nanmean().item())
    return {
        "model": name,
        "tokens": lengths[at],
        "inside_over_null": (query - null)[:, at].nanmean().item(),
        "inside_over_wrong": (query - wrong)[:, at].nanmean().item(),
        "outside_over_null": (scores.outside[0] - scores.outside[1])[:, at].nanmean().item(),
        "null_tokens_for_same": same,
        "fewer_for_same": 1 - lengths[at] / same,
        "target_psnr": target,
        "tokens_query": needed,
        "tokens_null": needed_null,
        "fewer": 1 - needed / needed_null,
        "auto_tokens_query": scores.auto[0].mean().item(),
        "auto_tokens_null": scores.auto[1].mean().item(),
        "auto_inside_query": query[:, -1].mean().item(),
        "auto_inside_null": null[:, -1].mean().item(),
        "auto_inside_wrong": wrong[:, -1].nanmean().item(),
        "null_psnr_whole_auto": scores.whole[:, -1].mean().item(),
        "objects": len(query),
    }


@torch.no_grad()
def picture_queries(model: QDove, examples: Sequence[QueryExample], num_tokens: int | str) -> bytes:
    """Draw Figure 7: for each image the original, null, and each of its queries with the boxes that answer it; PNG."""
    processor = ImageProcessor(model.image_size)
    rows = []
    for example in examples:
        image = example.image[None]
        queries = [None, *(ask.query for ask in example.asks)]
        tokens = model.encode(image, num_tokens, [queries])
        rebuilt = processor.to_pil(model.decode(tokens))
        captions = [
            f"{query or 'null'} ({length})" for query, length in zip(queries, tokens.lengths.tolist(), strict=True)
        ]
        boxes = [(), *(ask.boxes for ask in example.asks)]
        cells = [Cell(*parts) for parts in zip(rebuilt, captions, boxes, strict=True)]
        rows.append([Cell(processor.to_pil(image)[0], "original"), *cells])
    return encode_picture(side_by_side(rows), ".png")
