"""``dove vlm evaluate``: how many questions about images a model answers."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from dove.errors import UserError
from dove.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from dove.vlm.evaluate import Answered


@dataclass(frozen=True, kw_only=True)
class VlmOptions(EvaluationOptions):
    """Ask models questions with known answers, at fixed lengths and at auto: the rows of Table 3.

    Writes vlm.json and vlm.csv (model, tokenizer, number of tokens, mean tokens per image, accuracy, of easy-VQA also by kind
    of question), every answer in answers.json, and a picture of some questions with the answers at each length.
    """

    name = "vlm"

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")]
    """Questions: parquet, .json or .jsonl with image, question and answer (or answers)."""
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...")]
    """Folders of dove vlm train or hub ids, maybe as LABEL=FOLDER; each gets its own rows."""
    benchmark: str = "easy-vqa"
    """Decides prompt and metric: easy-vqa, vqav2, gqa, okvqa, textvqa, docvqa, infovqa, chartqa or scienceqa."""
    num_tokens: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N...")] = ("auto",)
    """Image tokens: numbers, auto, max 32, ...; full is all that the tokenizer has."""
    images: str = ""
    """Folder that image paths start from; the file's own by default."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Place of the models' image tokenizer, if not where it was in training."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """At most so many questions, drawn at random by the seed."""
    shown: Annotated[int, tyro.conf.arg(metavar="N")] = 6
    """Questions in the picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.data) != 1:
            raise UserError(f"--data names {len(self.data)} files; pass one")
        if not self.num_tokens:
            raise UserError("--num-tokens is empty; pass auto, full or numbers")


def run(options: VlmOptions) -> None:
    """Answer, count and write."""
    from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
    from dove.evaluation.common import labelled
    from dove.evaluation.report import EvaluationRun, rows_to_text
    from dove.vlm.evaluate import answer_questions, summarise
    from dove.vlm.model import VisionLanguageModel
    from dove.vlm.picture import questions_picture
    from dove.vlm.questions import get_benchmark, open_questions

    evaluation = EvaluationRun(options)
    benchmark = get_benchmark(options.benchmark)
    questions = open_questions(options.data[0], options.images).draw(options.limit, options.seed)
    rows, contents, hashes = [], {}, {}
    for name, source in labelled(options.model).items():
        model = VisionLanguageModel.from_pretrained(source, tokenizer=options.tokenizer, device=options.device)
        hashes[name] = checkpoint_sha256(resolve_checkpoint(source))
        requests = list(map(model.length_request, options.num_tokens))
        answers = answer_questions(model, questions, requests, prompt=benchmark.prompt, batch_size=options.batch_size)
        rows += summarise(name, model, answers, benchmark)
        suffix = evaluation.suffix(name)
        contents[f"answers{suffix}.json"] = answers_to_json(answers)
        contents[f"vlm{suffix}.png"] = questions_picture(model, questions, answers, options.shown)
    print(rows_to_text(rows))
    asked = {
        "source": options.data[0],
        "images": len({item.glimpse.index for item in questions.items}),
        "questions": len(questions),
        "sha256": questions.sha256,
    }
    report = {"rows": rows, "benchmark": options.benchmark, "metric": benchmark.metric}
    evaluation.write(report, contents, hashes, {"questions": asked})


def answers_to_json(answers: "dict[str, list[Answered]]") -> bytes:
    """Every question with what was said at each length."""
    records = []
    for together in zip(*answers.values(), strict=True):
        item = together[0].question
        said = {request: one.said for request, one in zip(answers, together, strict=True)}
        lengths = {request: one.length for request, one in zip(answers, together, strict=True)}
        record = {"key": item.key, "question": item.text, "answers": item.answers}
        records.append(record | {"said": said, "lengths": lengths})
    return (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode()
