"""Eq. 5 to 7 joined with models, and trainings with queries from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dove.config import BackboneConfig, VQGANConfig
from dove.data.annotations import convert
from dove.data.config import AugmentConfig
from dove.data.images import open_images
from dove.data.query_batch import Ask, QueryBatch, QueryExample
from dove.data.scenes import load_cutouts
from dove.data.stamps import convert_stamps
from dove.errors import UserError
from dove.losses.query import inside_boxes, irrelevant_loss, relevant_loss
from dove.losses.reconstruction import squared_error
from dove.query.config import QDoveConfig, QueryConfig
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove
from dove.training.config import AlignConfig, OptimConfig, RunConfig
from dove.training.objectives import Step
from dove.training.presets import PRESETS
from dove.training.query_config import (
    QDoveLossConfig,
    QDoveTrainConfig,
    QueryDataConfig,
    QueryPrefixLossConfig,
    QueryPrefixTrainConfig,
)
from dove.training.query_objective import GroundingHead, QDoveObjective, QueryPrefixObjective, pick_queries, psnr_inside
from dove.training.recipes import prepare_queries
from dove.training.setup import run_training

VQGAN = VQGANConfig(
    image_size=16, patch_size=2, block_out_channels=(8, 16), layers_per_block=1, latent_channels=8, codebook_size=16,
    norm_groups=4,
)  # fmt: skip
BACKBONE = BackboneConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64)
MODEL = QDoveConfig(
    vqgan=VQGAN,
    generator=BACKBONE,
    decoder=BACKBONE,
    max_tokens=16,
    token_dim=32,
    query=QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=24),
)
PREDICTING = replace(MODEL, eos_head="quality")
PLAIN = {"perceptual": 0.0, "perceptual_network": "none", "gan": 0.0}


def test_settings_that_no_query_model_uses_are_refused() -> None:
    with pytest.raises(UserError, match="loss.align.network=squeezenet; pass none"):
        QueryPrefixTrainConfig(
            preset="qdove-tiny", model=PREDICTING, loss=QueryPrefixLossConfig(align=AlignConfig(network="squeezenet"))
        )
    with pytest.raises(UserError, match="has no gaussian tokens"):
        replace(PREDICTING, token_kind="gaussian")


def settings(kind: str, data: Path, output: Path) -> QDoveTrainConfig | QueryPrefixTrainConfig:
    run = RunConfig(
        steps=4, batch_size=4, precision="fp32", threads=1, holdout=2, sample_every=2, checkpoint_every=2, log_every=1
    )
    shared = {"preset": kind, "data": str(data), "output": str(output), "start": "random", "run": run}
    shared |= {"optim": OptimConfig(lr=1e-3, warmup_steps=1, ema_decay=0.5)}
    if kind == "paper":
        return QDoveTrainConfig(model=MODEL, loss=QDoveLossConfig(**PLAIN), **shared)
    return QueryPrefixTrainConfig(model=PREDICTING, loss=QueryPrefixLossConfig(**PLAIN), **shared)


@pytest.fixture(scope="module")
def batch() -> QueryBatch:
    draws = torch.Generator().manual_seed(0)
    asks = [
        (Ask("a dog", ((1.0, 2.0, 5.0, 6.0), (8.0, 8.0, 8.0, 8.0))),),
        (Ask("a cat", ((0.0, 0.0, 3.0, 3.0),)), Ask("a car", ())),
        (Ask("nothing here", ()),),
        (Ask("null", ()),),
    ]
    return QueryBatch.collate([QueryExample(torch.rand(3, 16, 16, generator=draws) * 2 - 1, some) for some in asks])


@pytest.mark.parametrize("kind", ["paper", "prefix"])
def test_pictures_are_not_changed_under_their_queries(kind: str, tmp_path: Path) -> None:
    assert not PRESETS["qdove-base"].augment.flip
    with pytest.raises(UserError, match="takes pictures as they are"):
        replace(settings(kind, tmp_path, tmp_path), augment=AugmentConfig(crop_probability=0.0))


def test_a_query_of_each_image_with_its_own_boxes(batch: QueryBatch) -> None:
    model = QDove(MODEL)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        asked = pick_queries(batch, model, null=0.0)
        assert asked.query.mask.any(1).tolist() == [True, True, True, False]
        words = "a cat" if asked.about_part[1] else "a car"
        assert torch.equal(asked.query.ids[1][asked.query.mask[1]], model.query_tokens([words]).ids[0])
        seen.add(words)
        assert asked.about_part.tolist() == [True, words == "a cat", False, False]
        own = {row: asked.boxes[asked.image_of == row].tolist() for row in range(4)}
        whole = [[0, 0, 16, 16]]
        assert own[0] == [[1, 2, 5, 6], [8, 8, 8, 8]]
        assert own[1] == ([[0, 0, 3, 3]] if words == "a cat" else whole)
        assert own[2] == own[3] == whole
    assert seen == {"a cat", "a car"}
    assert not pick_queries(batch, model, null=1.0).about_part.any()


def test_about_half_are_null() -> None:
    image = torch.zeros(3, 16, 16)
    many = QueryBatch.collate([QueryExample(image, (Ask("a", ((0.0, 0.0, 2.0, 2.0),)),))] * 1000)
    torch.manual_seed(0)
    assert 440 < pick_queries(many, QDove(MODEL), null=0.5).about_part.sum() < 560


def test_papers_loss_is_equation_7(batch: QueryBatch, tmp_path: Path) -> None:
    config = settings("paper", tmp_path, tmp_path)
    assert isinstance(config, QDoveTrainConfig)
    config = replace(config, loss=replace(config.loss, null=0.0, irrelevant=0.25, eos=0.0))
    model = QDove(MODEL)
    torch.manual_seed(3)
    result = QDoveObjective(config, model)(batch, Step(0))
    torch.manual_seed(3)
    asked = pick_queries(batch, model, 0.0)
    arguments = (result.reconstruction, batch.images, asked.boxes, asked.image_of)
    expected = relevant_loss(*arguments, squared_error).mean() + 0.25 * irrelevant_loss(*arguments).mean()
    torch.testing.assert_close(result.loss, expected)
    assert result.metrics["length_asked"] > 0


def test_papers_loss_adds_both_terms_of_the_end(batch: QueryBatch, tmp_path: Path) -> None:
    config = settings("paper", tmp_path, tmp_path)
    assert isinstance(config, QDoveTrainConfig)
    config = replace(config, loss=replace(config.loss, null=0.0, irrelevant=0.25, eos=0.5))
    objective = QDoveObjective(config, QDove(MODEL))
    for threshold in (objective.threshold, objective.irrelevant_threshold):
        threshold.load_state_dict({"means": [1e9]})  # every image is good enough, inside of the boxes and outside
    torch.manual_seed(3)
    result = objective(batch, Step(config.run.steps))
    torch.manual_seed(3)
    asked = pick_queries(batch, objective.model, 0.0)
    arguments = (result.reconstruction, batch.images, asked.boxes, asked.image_of)
    rebuilt = relevant_loss(*arguments, squared_error).mean() + 0.25 * irrelevant_loss(*arguments).mean()
    eos, penalty = result.metrics["eos"], result.metrics["penalty"]
    assert eos < 0
    assert penalty == pytest.approx(float(eos) * float(asked.about_part.float().mean()), rel=0.2)
    torch.testing.assert_close(result.loss, rebuilt + 0.5 * (eos + penalty), rtol=1e-4, atol=1e-5)


def test_quality_is_foreseen_inside_the_boxes() -> None:
    images = torch.zeros(1, 3, 16, 16)
    rebuilt = images.clone()
    rebuilt[..., :8] = 0.2
    box = torch.tensor([[0.0, 0, 8, 16]])
    inside = inside_boxes(box, torch.tensor([0]), 1, 16)
    torch.testing.assert_close(psnr_inside(rebuilt, images, inside), torch.tensor([20.0]))


def test_gradients_reach_the_words(batch: QueryBatch, tmp_path: Path) -> None:
    config = settings("tiny", tmp_path, tmp_path)
    assert isinstance(config, QueryPrefixTrainConfig)
    model = QDove(PREDICTING)
    torch.manual_seed(0)
    result = QueryPrefixObjective(replace(config, loss=replace(config.loss, null=0.0)), model)(batch, Step(0))
    result.loss.backward()
    gradient = model.generator.query_embedding.words.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_grounding_looks_at_the_cells_of_the_grid(batch: QueryBatch) -> None:
    model = QDove(PREDICTING)
    head = GroundingHead(model)
    query = model.query_tokens(["a dog", "a cat on a mat", "null", "x"])
    with head.watching(model, query.ids.shape[1]) as states:
        output = model.generate_for(batch.images, query, 2)
    (grid,) = states
    assert grid.shape == output.grid.shape
    assert not model.generator.transformer.layers[-1]._forward_pre_hooks
    inside = torch.zeros(4, 16, 16, dtype=torch.bool)
    inside[:, :8, :4] = True
    asked = torch.tensor([True, False, False, False])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    torch.testing.assert_close(head.loss(grid, inside, asked), torch.tensor(2.0).log())
    assert head.loss(grid, inside, ~asked & asked) == 0
    shown = torch.zeros_like(grid)
    shown[..., 0] = torch.nn.functional.avg_pool2d(inside[:, None].float(), 16 // head.cells).flatten(1) * 2 - 1
    head.weight.data[0, 0] = 20.0
    assert head.loss(shown, inside, asked) < 1e-6


def test_scenes_train_a_model_that_lists_its_words(tmp_path: Path) -> None:
    (tmp_path / "stamps").mkdir()
    (tmp_path / "photos").mkdir()
    for number in range(30):
        Image.new("RGB", (16, 16), (number, 9, 9)).save(tmp_path / "photos" / f"{number}.png")
        Image.new("RGBA", (6, 9), (number * 6, 90, 200, 255)).save(tmp_path / "stamps" / f"{number}.png")
        (tmp_path / "stamps" / f"{number}.txt").write_text(f"A thing{number}.")
    convert_stamps(tmp_path / "stamps", tmp_path / "stamps.parquet")
    config = settings("tiny", tmp_path / "photos", tmp_path / "run")
    assert isinstance(config, QueryPrefixTrainConfig)
    scenes = QueryDataConfig(kind="scenes", stamps=str(tmp_path / "stamps.parquet"))
    config = replace(config, queries=scenes, loss=replace(config.loss, grounding=1.0))
    model = Dove.from_pretrained(run_training(config))
    assert isinstance(model, QDove)
    held_out = {word for cutout in load_cutouts(scenes.stamps) if cutout.held_out for word in cutout.words}
    known = set(model.config.query.known)
    assert held_out
    assert not held_out & known
    assert {"the", "where", "is"} < known
    run_training(replace(config, run=replace(config.run, steps=6)))


def test_scenes_need_cut_outs(tmp_path: Path) -> None:
    config = replace(settings("tiny", tmp_path, tmp_path), queries=QueryDataConfig(kind="scenes"))
    assert isinstance(config, QueryPrefixTrainConfig)
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"scenes need --queries\.stamps"):
        prepare_queries(config, open_images(str(tmp_path)), QDove(PREDICTING))


@pytest.mark.parametrize("kind", ["paper", "tiny"])
def test_annotated_images_train_by_either_recipe_and_resume(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    entries = []
    for number in range(6):
        Image.fromarray(np.full((16, 32, 3), 40 * number, dtype=np.uint8)).save(images / f"{number}.png")
        entries.append(
            {"image_id": f"{number}", "question": "in the middle", "answer": None, "bounding_box": [[10, 2, 12, 9]]}
        )
        entries.append(
            {"image_id": f"{number}", "question": "at the side", "answer": None, "bounding_box": [[0, 0, 4, 4]]}
        )
    (tmp_path / "a.json").write_text(json.dumps(entries))
    convert("reference", tmp_path / "a.json", images, tmp_path / "data.parquet")
    config = settings(kind, tmp_path / "data.parquet", tmp_path / "run")
    run_training(config)
    assert "16 times a query was left out" in capsys.readouterr().out
    run_training(replace(config, run=replace(config.run, steps=6)))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) >= 6
