"""Questions with their images as the model sees them, and its answers, by number of tokens."""

import torch

from dove.photos.picture import Cell, encode_picture, side_by_side
from dove.processor import ImageProcessor
from dove.query.tokenizer import encode_asked
from dove.tokens import format_token_count
from dove.vlm.evaluate import Answered
from dove.vlm.images import load_pixels
from dove.vlm.model import VisionLanguageModel
from dove.vlm.questions import Questions


def choose_shown(questions: Questions, answers: dict[str, list[Answered]], count: int) -> list[int]:
    """Numbers of questions about different images, those first on which the lengths disagree."""
    disagree = [len({found[number].said for found in answers.values()}) > 1 for number in range(len(questions))]
    chosen: dict[int, int] = {}
    for number in sorted(range(len(questions)), key=lambda number: not disagree[number]):
        chosen.setdefault(questions.items[number].glimpse.index, number)
    return sorted(list(chosen.values())[:count])


@torch.no_grad()
def questions_picture(
    model: VisionLanguageModel, questions: Questions, answers: dict[str, list[Answered]], count: int
) -> bytes:
    """Draw a PNG with a row for each of some questions."""
    blind = model.config.blind
    size = 64 if blind else model.config.image_size
    processor = ImageProcessor(size)
    rows = []
    for number in choose_shown(questions, answers, count):
        item = questions.items[number]
        pixels = load_pixels(questions.images, [item.glimpse], size)
        rebuilt = [pixels] * len(answers)
        if not blind:
            query = item.text if model.config.query == "question" else None
            tokens = encode_asked(model.tokenizer, pixels.to(model.device), list(answers), query)
            rebuilt = [model.tokenizer.decode(each) for each in tokens]
        row = [Cell(processor.to_pil(pixels)[0], item.text)]
        for found, image in zip(answers.values(), rebuilt, strict=True):
            one = found[number]
            row.append(Cell(processor.to_pil(image)[0], f"{format_token_count(one.length)}: {one.said}"))
        rows.append(row)
    return encode_picture(side_by_side(rows), ".png")
