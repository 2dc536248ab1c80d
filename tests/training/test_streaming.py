"""Shards dealt out to ranks and loader processes: by the records' names, none twice and none missing in an epoch."""

import io
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch.utils.data import Dataset

from dove.data.augment import TrainingImages
from dove.data.dataset import Record
from dove.data.images import open_images
from dove.training.batches import Batches
from dove.training.config import RunConfig

# Three loader processes are more than some machines have cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

FILES, ROWS = 3, 11
RECORDS = FILES * ROWS


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["tar", "parquet"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three shards of eleven pictures."""
    for file in range(FILES):
        levels = range(file * ROWS, (file + 1) * ROWS)
        path = tmp_path / f"{file:03}.{request.param}"
        if request.param == "tar":
            with tarfile.open(path, "w") as archive:
                for level in levels:
                    info = tarfile.TarInfo(f"{level:06}.png")
                    info.size = len(picture(level))
                    archive.addfile(info, io.BytesIO(picture(level)))
        else:
            cells = [{"bytes": picture(level), "path": None} for level in levels]
            pq.write_table(pa.table({"image": cells}), path, row_group_size=4)
    return tmp_path


class Named(Dataset[tuple[int, int]]):
    """Epoch and grey level of the pictures, as ``(epoch, index)`` pairs ask for them."""

    def __init__(self, folder: Path):
        self.dataset = open_images(folder)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: tuple[int, int]) -> tuple[int, int]:
        record = self.dataset[sample[1]]
        assert isinstance(record, Record)
        return sample[0], int(np.asarray(record.image)[0, 0, 0])

    collate = staticmethod(list)


def seen(
    folder: Path, rank: int, world_size: int, workers: int, start: int, steps: int, window: int = 0
) -> list[list[tuple[int, int]]]:
    run = RunConfig(batch_size=2, seed=5, shuffle_blocks=window)
    batches = Batches(Named(folder), run, rank=rank, world_size=world_size, workers=workers)
    return [step[0] for step in islice(batches.from_step(start), steps)]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_has_every_record_once(shards: Path, world_size: int, workers: int) -> None:
    steps = 2 * RECORDS // (2 * world_size) + 1
    ranks = [seen(shards, rank, world_size, workers, 0, steps) for rank in range(world_size)]
    for epoch in (0, 1):
        levels = [level for rank in ranks for batch in rank for number, level in batch if number == epoch]
        assert sorted(levels) == list(range(RECORDS))


@pytest.mark.parametrize("window", [1, 2])
def test_shuffled_blocks_come_together_and_once(shards: Path, window: int) -> None:
    ranks = [seen(shards, rank, 2, 0, 0, RECORDS // 2 + 1, window) for rank in range(2)]
    for epoch in (0, 1):
        levels = [level for rank in ranks for batch in rank for number, level in batch if number == epoch]
        assert sorted(levels) == list(range(RECORDS))
    order = [level for epoch, level in sum(seen(shards, 0, 1, 0, 0, RECORDS, window), []) if epoch == 0]
    assert order != sorted(order)
    dataset = open_images(shards)
    block_of = np.searchsorted(dataset.blocks, order, side="right")
    assert len(dataset.blocks) == (FILES + 1 if next(shards.glob("*.tar"), None) else 3 * FILES + 1)
    open_at_once = [len({*block_of[:place]} & {*block_of[place:]}) for place in range(1, RECORDS)]
    assert max(open_at_once) <= window
    assert seen(shards, 0, 2, 0, 9, 8, window) == ranks[0][9:17]


def test_blocks_of_parts_and_of_several_sources(shards: Path) -> None:
    files = sorted(shards.iterdir())
    dataset = open_images([files[0], files[1]])
    first = open_images(files[0]).blocks
    assert list(dataset.blocks) == [*first, *(ROWS + start for start in open_images(files[1]).blocks[1:])]
    assert list(dataset.select(range(1, 2 * ROWS)).blocks) == [0, *(b - 1 for b in dataset.blocks if 1 < b < 22), 21]
    assert list(dataset.select([3, 1]).blocks) == [0, 2]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_resumed_rank_goes_on_at_the_exact_sample(shards: Path, workers: int) -> None:
    whole = seen(shards, 1, 2, 0, 0, 20)
    for start in (1, 7, 12):
        assert seen(shards, 1, 2, workers, start, 20 - start) == whole[start:]


def samples(folder: Path, run: RunConfig, processes: int, step: int) -> list[tuple[int, int]]:
    """What one step shows over all processes, sorted."""
    found: list[tuple[int, int]] = []
    for rank in range(processes):
        (batches,) = islice(Batches(Named(folder), run, rank=rank, world_size=processes).from_step(step), 1)
        found += [pair for batch in batches for pair in batch]
    return sorted(found)


@pytest.mark.parametrize("window", [0, 1])
def test_as_many_images_a_step_are_the_same_samples_on_any_number_of_processes(shards: Path, window: int) -> None:
    for step in (0, 3, 11):  # an epoch ends within the third
        first, *others = [
            samples(shards, RunConfig(batch_size=12 // count, seed=5, shuffle_blocks=window), count, step)
            for count in (1, 2, 3, 4, 6)
        ]
        assert all(other == first for other in others)
        in_turns = RunConfig(batch_size=2, accumulate=3, seed=5, shuffle_blocks=window)
        assert samples(shards, in_turns, 2, step) == first


def test_the_records_of_a_step_are_named(shards: Path) -> None:
    images = TrainingImages(open_images(shards), 4)
    batches = Batches(images, RunConfig(batch_size=3, accumulate=2, seed=5), rank=1, world_size=2)
    found = batches.records(4)
    assert len(found) == 6
    assert all(record["key"] == images.dataset.raw(record["index"]).key for record in found)
    pairs = [(record["epoch"], record["index"]) for record in found]
    (following,) = islice(Batches(Named(shards), batches.run, rank=1, world_size=2).from_step(4), 1)
    assert [pair for batch in following for pair in batch] == pairs  # a record's grey level is its index
