"""``dove encode``: a source of images to a folder of tokens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.errors import UserError, readable
from dove.flags import require_least

if TYPE_CHECKING:
    from dove.data.dataset import ImageDataset
    from dove.lengths import LengthPolicy
    from dove.protocol import Tokenizer
    from dove.store import Shard, TokenStore


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
    query: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Subject that a Q-DOVE's tokens of every image describe first; null asks for the whole image."""
    batch_size: int = 64
    """Images at a time."""
    shard_size: int = 4096
    """Images of one file."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Precision of the stored values."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the computation; bf16 is several times faster on GPUs and on CPUs with bf16 matrix units."""
    image_column: str = "image"
    """Column of parquet files and hub datasets that holds the images."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first so many images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    engine: Literal["local", "ray"] = "local"
    """This process, or Ray Data with a model for every GPU of a cluster, or for every CPU core without any; all its machines
    must see the same paths."""

    def __post_init__(self) -> None:
        require_least("--batch-size", self.batch_size)
        require_least("--shard-size", self.shard_size)


class ShardEncoder:
    """A model and the images it turns into shards."""

    def __init__(self, options: EncodeOptions):
        from dove.data.images import open_images
        from dove.lengths import parse_length_policy
        from dove.query.tokenizer import require_queries
        from dove.query.words import is_null
        from dove.runtime import load_model

        self.dataset: ImageDataset = open_images(
            options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
        )
        self.model: Tokenizer = load_model(options.model, options.device)
        require_queries(self.model, options.query)
        self.query = None if is_null(options.query) else options.query
        if options.precision != "fp32":
            from dove.models.optimize import optimize
            from dove.tokenizer import Dove

            if not isinstance(self.model, Dove):
                raise UserError(
                    f"--precision {options.precision} is for DOVE and Q-DOVE; leave it out for other models"
                )
            optimize(self.model, options.precision)
        self.policy: LengthPolicy = parse_length_policy(options.num_tokens, self.model.max_tokens)
        self.batch_size, self.dtype = options.batch_size, options.dtype

    def shard(self, positions: range, progress: Callable[[int], Any] = lambda _images: None) -> "Shard":
        """Encode a part of the source; ``progress`` is called with the number of images of every batch."""
        import torch

        from dove.data.loader import ImageLoader
        from dove.processor import ImageProcessor
        from dove.protocol import device_of
        from dove.query.tokenizer import encode_asked
        from dove.store import Shard

        part = self.dataset.select(positions)
        loader = ImageLoader(part, ImageProcessor(self.model.image_size), batch_size=self.batch_size)
        device, dtype = device_of(self.model), torch.float16 if self.dtype == "fp16" else torch.float32
        keys: list[str] = []
        values: list[torch.Tensor] = []
        for batch in loader:
            (tokens,) = encode_asked(self.model, batch.pixels.to(device), [self.policy], self.query)
            # Without their padding and in the precision of the store: a shard is what a run holds in memory.
            values += [row.to("cpu", dtype, copy=True) for row in tokens.ragged()]
            keys += batch.keys
            progress(len(batch))
        progress(len(loader.unreadable))
        return Shard(keys, values, loader.unreadable)


def run(options: EncodeOptions) -> None:
    """Encode what is not encoded yet."""
    from dove.data.dataset import summarise_unreadable
    from dove.data.progress_bar import ProgressBar

    store, encoder = prepare(options)
    missing = store.missing()
    total = store.manifest.records
    done = total - sum(len(store.positions(index)) for index in missing)
    with ProgressBar(total=total, initial=done) as progress:
        if options.engine == "ray":
            from dove.commands.encode_ray import encode_on_cluster

            encode_on_cluster(
                lambda device: ShardEncoder(replace(options, device=device)), options.device, store, missing, progress
            )
        else:
            for index in missing:
                store.write(index, encoder.shard(store.positions(index), progress.update))
    summaries = [store.summary(index) for index in range(store.manifest.num_shards)]
    lengths = [length for some, _ in summaries for length in some]
    unreadable = [item for _, lost in summaries for item in lost]
    mean = f", {sum(lengths) / len(lengths):.1f} tokens each on average" if lengths else ""
    print(f"{len(lengths)} images in {options.output}{mean}")
    if unreadable:
        raise UserError(summarise_unreadable(unreadable, total))


def prepare(options: EncodeOptions) -> "tuple[TokenStore, ShardEncoder]":
    """Open the store that the options describe, new or unfinished, and make the encoder that fills it."""
    from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
    from dove.protocol import token_width
    from dove.store import Manifest, TokenStore

    encoder = ShardEncoder(options)
    manifest = Manifest(
        model=options.model,
        checkpoint_sha256=checkpoint_sha256(resolve_checkpoint(options.model)),
        num_tokens=str(encoder.policy),
        max_tokens=encoder.model.max_tokens,
        token_dim=token_width(encoder.model),
        dtype=options.dtype,
        source=[readable(name) for name in options.images],
        records=len(encoder.dataset),
        shard_size=options.shard_size,
        precision=options.precision,
        query=encoder.query,
    )
    return TokenStore.create(options.output, manifest), encoder
