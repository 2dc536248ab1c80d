"""Questions answered at several lengths, and how many of the answers are right."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dove.data.progress_bar import ProgressBar
from dove.vlm.images import encode_images
from dove.vlm.metrics import get_metric
from dove.vlm.model import VisionLanguageModel
from dove.vlm.questions import Benchmark, Question, Questions


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answer of a model."""

    question: Question
    said: str
    length: int  # Tokens of the image; 0 for a blind model


@torch.no_grad()
def answer_questions(
    model: VisionLanguageModel, questions: Questions, requests: Sequence[str], *, prompt: str = "", batch_size: int = 64
) -> dict[str, list[Answered]]:
    """Answers to all questions at each of the different length policies; every image is encoded once for all of them."""
    blind = model.config.blind
    found: dict[str, list[Answered]] = {request: [] for request in (["none"] if blind else requests)}
    with ProgressBar(total=len(questions), desc="answers", unit="question") as progress:
        for start in range(0, len(questions), batch_size):
            part = questions.items[start : start + batch_size]
            asked = [
                model.writer.unanswered(f"{item.text}\n{prompt}" if prompt else item.text, 1, item.key) for item in part
            ]
            by_question = model.config.query == "question"
            glimpses = [replace(item.glimpse, query=item.text if by_question else None) for item in part]
            seen = list(dict.fromkeys(glimpses))
            rows = [seen.index(glimpse) for glimpse in glimpses]
            encoded = [None] if blind else encode_images(model.tokenizer, questions.images, seen, list(found))
            for request, each in zip(found, encoded, strict=True):
                tokens = None if each is None else each[rows]
                said = model.generate(asked, tokens, keys=[item.key for item in part])
                lengths = [0] * len(part) if tokens is None else tokens.lengths.tolist()
                found[request] += [
                    Answered(question=item, said=words, length=length)
                    for item, words, length in zip(part, said, lengths, strict=True)
                ]
            progress.update(len(part))
    return found


def summarise(
    name: str, model: VisionLanguageModel, answers: dict[str, list[Answered]], benchmark: Benchmark
) -> list[dict[str, Any]]:
    """Make a row for each length policy: model, tokenizer, policy, mean tokens per image, the mean score, and that by kind.

    The mean length is over questions, as the cost of answering them is.
    """
    score = get_metric(benchmark.metric)
    rows = []
    for request, found in answers.items():
        scores: dict[str, list[float]] = {kind: [] for kind in ("accuracy", *benchmark.kinds)}
        for one in found:
            reached = score(one.said, one.question.answers)
            scores["accuracy"].append(reached)
            if kind := benchmark.kind(one.question.text):
                scores[kind].append(reached)
        rows.append(
            {
                "model": name,
                "tokenizer": model.config.tokenizer,
                "num_tokens": int(request) if request.isdigit() else request,
                "mean_length": float(np.mean([one.length for one in found])),
                **{kind: float(np.mean(reached)) if reached else None for kind, reached in scores.items()},
            }
        )
    return rows
