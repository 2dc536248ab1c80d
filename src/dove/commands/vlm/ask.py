"""``dove vlm ask``: a question about an image."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dove.errors import require_text


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """Ask a language model about an image that it sees through the tokens, and print its answer."""

    image: Annotated[Path, tyro.conf.Positional]
    """The picture."""
    question: Annotated[str, tyro.conf.Positional]
    """In words."""
    more_images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE...")] = ()
    """Further pictures; <image> in the question says where each stands."""
    model: str
    """A folder of dove vlm train, or a hub id."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Place of the model's image tokenizer, if not where it was in training."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N")] = ()
    """Image tokens: numbers, auto, ...; one answer for each. None: the model's own choice."""
    json: bool = False
    """Print JSON: a list of num_tokens (null for the model's own choice) and answer."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""


def run(options: AskOptions) -> None:
    """Print the answer, or for several length policies one line each."""
    require_text(options.question, "the question")
    from dove.data.progress_bar import ProgressBar
    from dove.vlm.model import VisionLanguageModel

    model = VisionLanguageModel.from_pretrained(options.model, tokenizer=options.tokenizer, device=options.device)
    pictures = [options.image, *options.more_images]
    requests = ProgressBar(options.num_tokens or (None,), unit="answer")
    answers = {request: model.ask(pictures, options.question, request) for request in requests}
    if options.json:
        found = [{"num_tokens": request, "answer": answer} for request, answer in answers.items()]
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif len(answers) == 1:
        print(*answers.values())
    else:
        width = max(map(len, options.num_tokens))
        print("\n".join(f"{request:>{width}}  {answer}" for request, answer in answers.items()))
