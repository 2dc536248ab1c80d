"""Memory, time and bytes of `dove encode` as the corpus grows.

    python benchmarks/encode_corpus.py --sizes 10 100 1000 10000 --output results/corpus

Paints the images itself, encodes each corpus in a process of its own, and writes corpus.json: per corpus the largest
resident memory in MiB, CPU seconds with those of the start, bytes per image ragged, padded and as the source's PNG; and
last, how much of the time the model is at work while the largest corpus is encoded once more, without the start.
"""

import argparse
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dove.commands.encode import EncodeOptions, prepare
from dove.store import TokenStore

SIZE = 64
ROWS_PER_GROUP = 100


def paint(generator: np.random.Generator) -> bytes:
    """A PNG of a smooth field with a few rectangles: from nearly plain to crowded."""
    side = int(generator.integers(1, 9))
    field = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
    image = field.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    for _ in range(int(generator.integers(0, 12))):
        left, upper = (int(value) for value in generator.integers(0, SIZE - 4, 2))
        width, height = (int(value) for value in generator.integers(3, 24, 2))
        image.paste(tuple(generator.integers(0, 256, 3).tolist()), (left, upper, left + width, upper + height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_corpus(path: Path, count: int) -> int:
    """A parquet file of so many images; the bytes of the pictures."""
    generator, total = np.random.default_rng(0), 0
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, ROWS_PER_GROUP):
            cells = [paint(generator) for _ in range(min(ROWS_PER_GROUP, count - start))]
            total += sum(map(len, cells))
            writer.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in cells]}, schema=schema))
    return total


def encode(corpus: Path, output: Path, shard_size: int) -> tuple[float, float]:
    """CPU seconds, which other work on the machine hardly moves, and largest resident memory in MiB of a `dove encode`."""
    arguments = ["encode", str(corpus), "--output", str(output), "--shard-size", str(shard_size)]
    process = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "dove", *arguments])
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"dove {' '.join(arguments)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def busy_share(corpus: Path, output: Path, shard_size: int) -> float:
    """Seconds inside of the model's ``encode`` in those of encoding and writing the whole corpus."""
    store, encoder = prepare(EncodeOptions(images=(str(corpus),), output=output, shard_size=shard_size))
    encode, busy = encoder.model.encode, 0.0

    def timed(*arguments: object) -> object:
        nonlocal busy
        start = time.perf_counter()
        tokens = encode(*arguments)
        busy += time.perf_counter() - start
        return tokens

    encoder.model.encode = timed
    start = time.perf_counter()
    for index in store.missing():
        store.write(index, encoder.shard(store.positions(index)))
    return busy / (time.perf_counter() - start)


def measure(folder: Path, count: int, shard_size: int) -> dict[str, float]:
    """One corpus."""
    corpus = folder / f"{count}.parquet"
    source = make_corpus(corpus, count)
    seconds, memory = encode(corpus, folder / str(count), shard_size)
    store = TokenStore.open(folder / str(count))
    summaries = [store.summary(index) for index in range(store.manifest.num_shards)]
    tokens = sum(summary.tokens for summary in summaries)
    stored = sum(store.path(index).stat().st_size for index in range(store.manifest.num_shards))
    return {
        "images": count,
        "memory_mib": round(memory, 1),
        "cpu_seconds": round(seconds, 1),
        "mean_tokens": round(tokens / count, 2),
        "bytes_ragged": round(stored / count, 1),
        "bytes_padded": 2.0 * store.manifest.max_tokens * store.manifest.token_dim,
        "bytes_source": round(source / count, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("results/corpus"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for count in options.sizes:
        rows.append(measure(options.output, count, options.shard_size))
        print(rows[-1], flush=True)
        (options.output / "corpus.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    largest = max(options.sizes)
    share = busy_share(options.output / f"{largest}.parquet", options.output / f"{largest}-again", options.shard_size)
    print(f"the model is at work for {share:.1%} of the time")
    (options.output / "corpus.json").write_text(json.dumps({"rows": rows, "busy": round(share, 4)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
