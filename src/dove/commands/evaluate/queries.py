"""``dove evaluate queries``: what a query buys."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dove.errors import UserError
from dove.evaluation.options import EvaluationOptions
from dove.flags import require_least

if TYPE_CHECKING:
    from dove.data.dataset import ImageDataset
    from dove.data.queries import AnnotatedImages
    from dove.data.scenes import Scenes

SCENES = 200


@dataclass(frozen=True, kw_only=True)
class QueriesOptions(EvaluationOptions):
    """Set tokens for a query against tokens for the whole image (section 2.3, Figure 7).

    Data are parquet that `dove data convert` wrote or with columns names and bboxes; or, with --stamps, photos on which
    cut-outs are laid, those of trainings (seen) and those kept apart (unseen). Writes queries.json, .csv and queries.png
    (original, null and each query).
    """

    name = "queries"

    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL...")]
    """Q-DOVE checkpoints: folders of dove train or hub ids."""
    stamps: str = ""
    """Table of cut-outs that `dove data convert stamps` wrote."""
    picture_tokens: Annotated[str, tyro.conf.arg(metavar="N|auto")] = "12"
    """Number of tokens in the picture."""
    examples: int = 8
    """Images in the picture; 0 for no picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_least("--examples", self.examples, 0)


def run(options: QueriesOptions) -> None:
    """Evaluate and write the report."""
    from dove.evaluation.common import Images, load_subjects
    from dove.evaluation.queries import picture_queries, score_queries, summarise_queries, summarise_savings
    from dove.evaluation.report import EvaluationRun, rows_to_text
    from dove.query.tokenizer import QDove

    evaluation = EvaluationRun(options)
    evaluation.subjects = subjects = load_subjects(options.model, options.device)
    for subject in subjects:
        if not isinstance(subject.tokenizer, QDove):
            raise UserError(f"{subject.name} takes no queries; pass the folder of a Q-DOVE")
    images = Images(options.data, seed=options.seed)
    evaluation.data = {"data": images}
    rows: list[dict[str, Any]] = []
    savings: list[dict[str, Any]] = []
    pictures: dict[str, bytes] = {}
    for subject in subjects:
        model = subject.tokenizer
        assert isinstance(model, QDove)
        for kind, scenes in query_scenes(options, images.dataset, model.image_size).items():
            count = min(options.limit or SCENES, len(scenes))
            scores = score_queries(model, scenes, count, options.batch_size)
            rows += [{"data": kind, **row} for row in summarise_queries(subject.name, scores)]
            savings.append(
                {"data": kind, "scenes": count, **summarise_savings(subject.name, scores, model.config.quality_target)}
            )
            if options.examples:
                shown = [scenes[0, row] for row in range(min(options.examples, count))]
                name = f"queries{evaluation.suffix(subject.name)}{'-unseen' if kind == 'unseen' else ''}.png"
                pictures[name] = picture_queries(model, shown, options.picture_tokens)
    print(rows_to_text(savings))
    evaluation.finish({"summary": savings, "rows": rows}, pictures)


def query_scenes(options: QueriesOptions, dataset: "ImageDataset", size: int) -> "dict[str, AnnotatedImages | Scenes]":
    """Make the scenes to evaluate on, by kind."""
    from dove.data.config import SceneConfig
    from dove.data.queries import AnnotatedImages, has_queries
    from dove.data.scenes import Scenes, load_cutouts

    if options.stamps:
        cutouts, config = load_cutouts(options.stamps), SceneConfig(curriculum=0)
        kinds = {"seen": [c for c in cutouts if not c.held_out], "unseen": [c for c in cutouts if c.held_out]}
        return {
            kind: Scenes(dataset, own, size, config, seed=options.seed, evaluation=True) for kind, own in kinds.items()
        }
    if not has_queries(first := dataset.raw(0)):
        raise UserError(
            f"{first.name} has no queries; pass parquet that `dove data convert` wrote or with columns names and bboxes, or "
            "--stamps with the table of cut-outs that `dove data convert stamps` writes"
        )
    return {"annotated": AnnotatedImages(dataset, size)}
