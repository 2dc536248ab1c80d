"""The token store: any tokens come back as they were, with this package and without."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dove.data.dataset import Unreadable
from dove.errors import UserError
from dove.store import Manifest, Shard, TokenDataset, TokenStore
from dove.tokenizer import Dove

WIDTH, CAPACITY = 3, 5


def manifest(records: int, shard_size: int, dtype: str = "fp16", sha256: str = "a" * 64) -> Manifest:
    return Manifest(
        model="some-model",
        checkpoint_sha256=sha256,
        num_tokens="auto",
        max_tokens=CAPACITY,
        token_dim=WIDTH,
        dtype=dtype,
        source=["photos"],
        records=records,
        shard_size=shard_size,
    )


def ragged(lengths: list[int], dtype: torch.dtype = torch.float16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randn(length, WIDTH, generator=generator).to(dtype) for length in lengths]


def fill(folder: Path, lengths: list[int], shard_size: int) -> list[torch.Tensor]:
    """A finished store of images named k0, k1, ..."""
    store = TokenStore.create(folder, manifest(len(lengths), shard_size))
    values = ragged(lengths)
    for index in store.missing():
        rows = store.positions(index)
        store.write(index, Shard([f"k{row}" for row in rows], [values[row] for row in rows], []))
    return values


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, CAPACITY), max_size=9),
    numbers=st.lists(st.floats(-6e4, 6e4, width=16), min_size=CAPACITY * WIDTH * 9, max_size=CAPACITY * WIDTH * 9),
    reasons=st.lists(st.text(), max_size=2),
    dtype=st.sampled_from(["fp16", "fp32"]),
)
def test_a_shard_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], numbers: list[float], reasons: list[str], dtype: str
) -> None:
    pool = iter(torch.tensor(numbers).view(-1, WIDTH))
    values = [torch.stack([next(pool) for _ in range(length)]) for length in lengths]
    shard = Shard(
        [f"k{n}" for n in range(len(values))], values, [Unreadable(f"u{n}", r) for n, r in enumerate(reasons)]
    )
    store = TokenStore.create(tmp_path_factory.mktemp("store"), manifest(20, 20, dtype))
    store.write(0, shard)
    found = store.read(0)
    assert (found.keys, found.lengths, found.unreadable) == (shard.keys, lengths, shard.unreadable)
    assert all(torch.equal(old, new.float()) for old, new in zip(values, found.values, strict=True))
    assert store.summary(0) == (lengths, shard.unreadable)


@settings(max_examples=50, deadline=None)
@given(records=st.integers(1, 50), shard_size=st.integers(1, 20))
def test_shards_cover_every_record_once(records: int, shard_size: int) -> None:
    store = TokenStore(Path("nowhere"), manifest(records, shard_size))
    covered = [position for index in store.missing() for position in store.positions(index)]
    assert covered == list(range(records))


def test_a_shard_is_read_by_pyarrow_alone(tmp_path: Path) -> None:
    values = fill(tmp_path / "store", [2, 5, 1], shard_size=2)
    table = pq.read_table(tmp_path / "store" / "tokens-00000.parquet")
    assert table["length"].to_pylist() == [2, 5]
    found = np.array(table["values"][1].as_py(), np.float16).reshape(-1, WIDTH)
    assert (found == values[1].numpy()).all()
    assert b"a" * 64 in table.schema.metadata[b"dove.store"]


def test_the_store_is_read_by_hf_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    values = fill(tmp_path / "store", [2, 5, 1], shard_size=2)
    files = sorted(str(path) for path in (tmp_path / "store").glob("*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["key"][:] == ["k0", "k1", "k2"]
    for row, tokens in zip(rows, values, strict=True):
        assert np.array(row["values"]).reshape(-1, WIDTH) == pytest.approx(tokens.float().numpy())


def test_the_store_is_read_by_duckdb(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    values = fill(tmp_path / "store", [2, 5, 1], shard_size=2)
    query = f"SELECT key, length, values FROM '{tmp_path}/store/*.parquet' ORDER BY key"
    rows = duckdb.sql(query).fetchall()
    assert [row[:2] for row in rows] == [("k0", 2), ("k1", 5), ("k2", 1)]
    for row, tokens in zip(rows, values, strict=True):
        assert np.array(row[2]).reshape(-1, WIDTH) == pytest.approx(tokens.float().numpy())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataset_gives_every_record_in_order(num_workers: int, tmp_path: Path) -> None:
    lengths = [3, 1, 5, 2, 2, 4, 1]
    values = fill(tmp_path, lengths, shard_size=3)
    dataset = TokenDataset(tmp_path)
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate, num_workers=num_workers)
    batches = list(loader)
    assert [key for keys, _ in batches for key in keys] == [f"k{number}" for number in range(7)]
    assert [length for _, tokens in batches for length in tokens.lengths.tolist()] == lengths
    found = [row for _, tokens in batches for row in tokens.ragged()]
    assert all(torch.equal(old.float(), new) for old, new in zip(values, found, strict=True))
    assert batches[0][1].values.shape == (2, CAPACITY, WIDTH)
    assert dataset[-1].key == "k6"
    with pytest.raises(IndexError):
        dataset[7]


def test_a_dataset_of_another_checkpoint_is_refused(tmp_path: Path, tiny_dove: Dove) -> None:
    fill(tmp_path / "store", [1], shard_size=1)
    tiny_dove.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="was made by some-model"):
        TokenDataset(tmp_path / "store", checkpoint=tmp_path / "model")
    (tmp_path / "store" / "tokens-00000.parquet").unlink()
    with pytest.raises(UserError, match="unfinished: 1 of 1"):
        TokenDataset(tmp_path / "store")
