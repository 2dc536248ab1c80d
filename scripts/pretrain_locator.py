"""Teaches a Q-DOVE where things are, before it learns to describe them: the first stage of qdove-tiny.

    python scripts/pretrain_locator.py --data data/cifar10-train.parquet --whole data/tiny-imagenet-train-0.parquet \\
        --output runs/qdove-locator

Encoding scenes costs more than looking at them, so scenes are encoded once: mosaics of two by two photos, whose quarters are
dealt out anew in every batch (a latent sees little beyond its own cell), and a pool of other scenes as they are.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dove.data.config import MosaicConfig
from dove.data.images import open_images
from dove.data.mosaics import Mosaics
from dove.data.query_batch import QueryBatch
from dove.models.locator import cell_masks, rectangle_of_boxes
from dove.query.config import QueryConfig, RegionConfig
from dove.query.generator import RegionTokenGenerator
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove


def encode_scenes(model: QDove, scenes: Mosaics, epoch: int, indices: range) -> list[QueryBatch]:
    """Scenes in batches of 64 with latents (B, N, C) in the place of images, in half precision."""
    batches = []
    for first in range(indices.start, indices.stop, 64):
        batch = QueryBatch.collate([scenes[epoch, index] for index in range(first, min(first + 64, indices.stop))])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = model.latents(batch.images).half()
        batches.append(QueryBatch(latents, batch.queries, batch.image_of, batch.boxes, batch.query_of))
    return batches


class Quarters:
    """Latents of single photos, 4 x 4 cells of a grid of 8 x 8, and their names; dealt out four at a time."""

    def __init__(self, model: QDove, scenes: Mosaics, photos: int):
        quarters, names = [], []
        rows = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(0)).tolist()
        for first in range(0, photos, 256):
            chosen = [rows[(first + number) % len(rows)] for number in range(256)]
            images = torch.stack([scenes.draw(epoch, chosen[4 * epoch : 4 * epoch + 4]) for epoch in range(64)])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                grid = model.latents(images).half().unflatten(1, (2, 4, 2, 4))  # (B, y, 4, x, 4, C)
            quarters.append(grid.permute(0, 1, 3, 2, 4, 5).flatten(0, 2))
            names += [scenes.name_of(row) for row in chosen]
        self.quarters, self.scenes = torch.cat(quarters), scenes
        self.labels = torch.tensor([scenes.names.index(name) for name in names])

    def deal(self, count: int, draws: torch.Generator) -> QueryBatch:
        """``count`` mosaics of four different names each, with a query for all of them and one for a fifth name."""
        classes = torch.rand(count, len(self.scenes.names), generator=draws).argsort(1)[:, :5]
        picks = torch.empty(count, 4, dtype=torch.long)
        for label in range(len(self.scenes.names)):
            pool = (self.labels == label).nonzero()[:, 0]
            mine = classes[:, :4] == label
            picks[mine] = pool[torch.randint(len(pool), (int(mine.sum()),), generator=draws)]
        grid = self.quarters[picks].unflatten(1, (2, 2)).permute(0, 1, 3, 2, 4, 5)  # (B, y, 4, x, 4, C)
        seed = int(torch.randint(2**31, (), generator=draws))
        queries = self.scenes.words_for([self.scenes.names[label] for label in classes.flatten().tolist()], seed)
        corners = torch.tensor([[0.0, 0], [32, 0], [0, 32], [32, 32]])
        boxes = torch.cat([corners, torch.full((4, 2), 32.0)], 1).repeat(count, 1)
        asked = torch.arange(5 * count).view(count, 5)
        return QueryBatch(
            grid.reshape(count, 64, -1), tuple(queries), torch.arange(count).repeat_interleave(5), boxes,
            asked[:, :4].flatten(),
        )  # fmt: skip


def loss_of(model: QDove, batch: QueryBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of the rectangles, of the cells, and which rectangles are right, (Q,)."""
    generator = model.generator
    assert isinstance(generator, RegionTokenGenerator)
    query = model.query_tokens(batch.queries)
    with torch.autocast("cpu", torch.bfloat16):
        logits = generator.cell_logits(batch.images.to(torch.bfloat16), query, batch.image_of)
    target = rectangle_of_boxes(batch.boxes, batch.query_of, len(query), 8, 8)
    scores = generator.locator.rectangle_scores(logits)
    number = generator.locator.number_of(target)
    cells = F.binary_cross_entropy_with_logits(logits, cell_masks(target, 8).float())
    found, true = cell_masks(generator.locator.rectangles[scores.argmax(1)], 8), cell_masks(target, 8)
    overlap = (found & true).sum(1) / (found | true).sum(1).clamp(min=1)
    return F.cross_entropy(scores, number), cells, torch.where(true.any(1), overlap > 0.5, ~found.any(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="photos of single objects with their names")
    parser.add_argument("--whole", required=True, help="photos with names and boxes")
    parser.add_argument("--test", help="photos of single objects for a held-out measurement")
    parser.add_argument("--start", default="dove-tiny", help="DOVE checkpoint")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="generator.pt of an earlier run, to go on from")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--photos", type=int, default=204800)
    parser.add_argument("--pool", type=int, default=32768)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)

    query = QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=32)
    model = QDove.from_dove(Dove.from_pretrained(options.start), query, RegionConfig(kind="rectangle"))
    photos = open_images(options.data)
    scenes = Mosaics(
        photos, 64, MosaicConfig(grid_share=0.1, whole_share=0.4), seed=options.seed, whole=open_images(options.whole)
    )
    began = time.time()
    quarters = Quarters(model, scenes, options.photos)
    print(f"encoded {len(quarters.labels)} photos in {time.time() - began:.0f} s", flush=True)
    pool = encode_scenes(model, scenes, 0, range(options.pool))
    print(f"encoded all scenes in {time.time() - began:.0f} s", flush=True)
    # Statistics of regions, from the scenes themselves.
    model.fit_regions(torch.stack([scenes[1, index].image for index in range(512)]))
    held_out = []
    if options.test:
        test = Mosaics(open_images(options.test), 64, MosaicConfig(augment=False, absent_share=1.0), seed=1)
        held_out = encode_scenes(model, test, 0, range(256))

    model.requires_grad_(False)
    generator = model.generator
    assert isinstance(generator, RegionTokenGenerator)
    if options.weights:
        earlier = torch.load(options.weights, weights_only=True)
        learned_before = ("locator.", "query_embedding.")
        generator.load_state_dict(
            {name: tensor for name, tensor in earlier.items() if name.startswith(learned_before)}, strict=False
        )
    learned = [*generator.locator.parameters(), *generator.query_embedding.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    generator.locator.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(learned, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    draws = torch.Generator().manual_seed(options.seed)
    began = time.time()
    for step in range(options.steps):
        batch = pool[step // 2 % len(pool)] if step % 2 else quarters.deal(options.batch_size, draws)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / options.steps)) / 2
        rectangle, cells, right = loss_of(model, batch)
        optimizer.zero_grad()
        (rectangle + cells).backward()
        nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
        if step % 50 == 49:
            numbers = {
                "step": step + 1,
                "rectangle": round(rectangle.item(), 3),
                "right": round(right.float().mean().item(), 3),
                "per_second": round((step + 1) * options.batch_size / (time.time() - began)),
            }
            print(json.dumps(numbers), flush=True)
        if step % 200 == 199 or step + 1 == options.steps:
            if held_out:
                generator.locator.eval()
                with torch.no_grad():
                    results = [loss_of(model, part) for part in held_out]
                rectangle = torch.stack([result[0] for result in results]).mean()
                right = torch.cat([result[2] for result in results]).float().mean()
                print(
                    json.dumps({"step": step, "held_out": round(rectangle.item(), 3), "right": round(right.item(), 3)}),
                    flush=True,
                )
                generator.locator.train()
            torch.save(generator.state_dict(), options.output / "generator.pt")
            model.save_pretrained(options.output / "model")
    print(f"model: {options.output / 'model'}; {options.steps} steps")


if __name__ == "__main__":
    main()
