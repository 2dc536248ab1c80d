"""``dove encode --engine ray``: the shards of a store dealt out to models all over a cluster.

A shard is the unit of work: an actor reads its records from the source, encodes them and writes the file, so that no image
or token travels between machines, and the store is the same as one process would have written.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dove.errors import UserError
from dove.store import TokenStore


class ShardActor:
    """A model on one device of the cluster; Ray makes as many as there is room for."""

    def __init__(self, make_encoder: Callable[[str], Any], device: str, output: Path, folder: str):
        import torch

        os.chdir(folder)
        torch.set_num_threads(1)
        self.encoder, self.store = make_encoder(device), TokenStore.open(output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode and write the shards of a batch; returns how many records each covers, or what went wrong."""
        results: list[str] = []
        for index in batch["index"].tolist():
            try:
                self.store.write(index, self.encoder.shard(self.store.positions(index)))
                results.append("")
            except UserError as error:  # as a row: an exception would come back as Ray's own, with its traceback
                results.append(str(error))
        return {"index": batch["index"], "error": results}


def encode_on_cluster(
    make_encoder: Callable[[str], Any], device: str, store: TokenStore, missing: Sequence[int], progress: Any
) -> None:
    """Write the missing shards on all machines of the cluster that ``RAY_ADDRESS`` names, or on this one.

    ``make_encoder`` makes a ``ShardEncoder`` on a device; "auto" and "cuda" take a GPU for each where the cluster has some.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray; install it with: pip install 'dove-encoder[scale]'") from error
    if not missing:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if device in ("auto", "cuda") else 0
    workers = min(gpus or int(resources.get("CPU", 1)), len(missing))
    rows = ray.data.from_items([{"index": index} for index in missing], override_num_blocks=len(missing))
    done = rows.map_batches(
        ShardActor,
        fn_constructor_args=(make_encoder, "cuda" if gpus else "cpu", store.folder, str(Path.cwd())),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=1 if gpus else 0,
        num_cpus=1,
    )
    failed = ""
    for row in done.iter_rows():
        failed = failed or row["error"]
        progress.update(len(store.positions(row["index"])))
    if failed:
        raise UserError(failed)
