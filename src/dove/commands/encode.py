"""``dove encode``: a source of images to a folder of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dove.errors import UserError

if TYPE_CHECKING:
    from dove.data.dataset import ImageDataset
    from dove.lengths import LengthPolicy
    from dove.store import Shard
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
    image_column: str = "image"
    """Column of parquet files and hub datasets that holds the images."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first so many images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")


def run(options: EncodeOptions) -> None:
    """Encode what is not encoded yet.

    Raises:
        UserError: for options that cannot work; for unreadable images, after all others are done.
    """
    from tqdm import tqdm

    from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
    from dove.commands.runtime import load_model
    from dove.data.dataset import Unreadable, summarise_unreadable
    from dove.data.images import open_images
    from dove.lengths import parse_length_policy
    from dove.store import Manifest, TokenStore

    dataset = open_images(
        options.images, image_column=options.image_column, columns=[], limit=options.limit, on_error="skip"
    )
    model = load_model(options.model, options.device)
    policy = parse_length_policy(options.num_tokens, model.config.max_tokens)
    manifest = Manifest(
        model=options.model,
        checkpoint_sha256=checkpoint_sha256(resolve_checkpoint(options.model)),
        num_tokens=str(policy),
        max_tokens=model.config.max_tokens,
        token_dim=model.config.token_dim,
        dtype=options.dtype,
        source=list(options.images),
        records=len(dataset),
        shard_size=options.shard_size,
    )
    store = TokenStore.create(options.output, manifest)
    missing = store.missing()
    done = len(dataset) - sum(len(store.positions(index)) for index in missing)
    with tqdm(total=len(dataset), initial=done, unit="image", disable=None) as progress:
        for index in missing:
            shard = encode_shard(model, policy, dataset.select(store.positions(index)), options.batch_size, progress)
            store.write(index, shard)
    unreadable: list[Unreadable] = []
    images = tokens = 0
    for shard in store.shards():
        images, tokens = images + len(shard.keys), tokens + int(shard.tokens.lengths.sum())
        unreadable += shard.unreadable
    mean = f", {tokens / images:.1f} tokens each on average" if images else ""
    print(f"{images} images in {options.output}{mean}")
    if unreadable:
        raise UserError(summarise_unreadable(unreadable, len(dataset)))


def encode_shard(
    model: "Dove", policy: "LengthPolicy", part: "ImageDataset", batch_size: int, progress: Any
) -> "Shard":
    """The tokens of a part of the source; ``progress`` is a tqdm bar that counts images."""
    import torch

    from dove.data.loader import ImageLoader
    from dove.processor import ImageProcessor
    from dove.store import Shard
    from dove.tokens import Tokens

    loader = ImageLoader(part, ImageProcessor(model.image_size), batch_size=batch_size)
    device = next(model.parameters()).device
    keys: list[str] = []
    batches = [
        Tokens(torch.zeros(0, model.config.max_tokens, model.config.token_dim), torch.zeros(0, dtype=torch.long))
    ]
    for batch in loader:
        batches.append(model.encode(batch.pixels.to(device), policy).to("cpu"))
        keys += batch.keys
        progress.update(len(batch))
    progress.update(len(loader.unreadable))
    return Shard(keys, Tokens.cat(batches), loader.unreadable)
