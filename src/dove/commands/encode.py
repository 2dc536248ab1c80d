"""``dove encode``: a source of images to a folder of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.errors import UserError

if TYPE_CHECKING:
    from dove.data.dataset import ImageDataset
    from dove.lengths import LengthPolicy
    from dove.store import Shard, TokenStore
    from dove.tokenizer import Dove


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Turn images into tokens, as parquet shards with ragged values. Run again after a kill, it goes on where it was."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Image files, folders, patterns, parquet files, .tar shards or hub datasets."""
    output: Path
    """Folder for the tokens."""
    model: str = "dove-tiny"
    """A shipped checkpoint, a checkpoint folder or a hub id."""
    num_tokens: str = "auto"
    """A number, auto, auto+2 (2 dB less on dove-tiny), "max 32", ..."""
    batch_size: int = 64
    """Images at a time."""
    shard_size: int = 4096
    """Images of one file."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Precision of the stored values."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the model computes in; bf16 is several times faster on GPUs and on CPUs with bf16 matrix units."""
    image_column: str = "image"
    """Column of parquet files and hub datasets that holds the images."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first so many images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    engine: Literal["local", "ray"] = "local"
    """This process, or Ray Data with one model on every device of a cluster; all its machines must see the same paths."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Models at work with --engine ray; by default one for every GPU of the cluster, or for every CPU core without any."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_size", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1")
        if self.workers is not None and self.engine != "ray":
            raise UserError("--workers counts the models of --engine ray; leave it out or add that")


def run(options: EncodeOptions) -> None:
    """Encode what is not encoded yet.

    Raises:
        UserError: for options that cannot work; for unreadable images, after all others are done.
    """
    from tqdm import tqdm

    from dove.data.dataset import Unreadable, summarise_unreadable

    store, encoder = prepare(options)
    missing = store.missing()
    total = store.manifest.records
    done = total - sum(len(store.positions(index)) for index in missing)
    with tqdm(total=total, initial=done, unit="image", disable=None) as progress:
        if options.engine == "ray":
            from dove.commands.encode_ray import encode_on_cluster

            encode_on_cluster(options, store, missing, progress)
        else:
            for index in missing:
                store.write(index, encoder.shard(store.positions(index), progress))
    unreadable: list[Unreadable] = []
    images = tokens = 0
    for index in range(store.manifest.num_shards):
        summary = store.summary(index)
        images, tokens = images + summary.images, tokens + summary.tokens
        unreadable += summary.unreadable
    mean = f", {tokens / images:.1f} tokens each on average" if images else ""
    print(f"{images} images in {options.output}{mean}")
    if unreadable:
        raise UserError(summarise_unreadable(unreadable, total))


def prepare(options: EncodeOptions) -> "tuple[TokenStore, ShardEncoder]":
    """The store that the options describe, new or unfinished, and what fills it.

    Raises:
        UserError: for options that cannot work, or a folder with other tokens.
    """
    from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
    from dove.data.names import readable
    from dove.store import Manifest, TokenStore

    encoder = ShardEncoder(options)
    manifest = Manifest(
        model=options.model,
        checkpoint_sha256=checkpoint_sha256(resolve_checkpoint(options.model)),
        num_tokens=str(encoder.policy),
        max_tokens=encoder.model.config.max_tokens,
        token_dim=encoder.model.config.token_dim,
        dtype=options.dtype,
        source=[readable(name) for name in options.images],
        records=len(encoder.dataset),
        shard_size=options.shard_size,
        precision=options.precision,
    )
    return TokenStore.create(options.output, manifest), encoder


class ShardEncoder:
    """A model and the images it turns into shards.

    Args:
        options: of the command.

    Raises:
        UserError: for a model, images or a number of tokens that don't do.
    """

    def __init__(self, options: EncodeOptions):
        from dove.data.images import open_images
        from dove.lengths import parse_length_policy
        from dove.runtime import load_model

        self.dataset: ImageDataset = open_images(
            options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
        )
        self.model: Dove = load_model(options.model, options.device)
        if options.precision != "fp32":
            from dove.models.optimize import optimize

            optimize(self.model, options.precision)
        self.policy: LengthPolicy = parse_length_policy(options.num_tokens, self.model.config.max_tokens)
        self.batch_size, self.half = options.batch_size, options.dtype == "fp16"

    def shard(self, positions: range, progress: Any = None) -> "Shard":
        """The tokens of a part of the source; ``progress`` is a tqdm bar that counts images."""
        import torch

        from dove.data.loader import ImageLoader
        from dove.processor import ImageProcessor
        from dove.store import Shard

        part = self.dataset.select(positions)
        loader = ImageLoader(part, ImageProcessor(self.model.image_size), batch_size=self.batch_size)
        device = next(self.model.parameters()).device
        keys: list[str] = []
        values: list[torch.Tensor] = []
        for batch in loader:
            tokens = self.model.encode(batch.pixels.to(device), self.policy)
            # Without their padding and in the precision of the store: a shard is what a run holds in memory.
            values += [
                row.to("cpu", torch.float16 if self.half else torch.float32, copy=True) for row in tokens.ragged()
            ]
            keys += batch.keys
            if progress is not None:
                progress.update(len(batch))
        if progress is not None:
            progress.update(len(loader.unreadable))
        return Shard(keys, values, loader.unreadable)
