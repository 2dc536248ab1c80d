"""``dove encode``: a source of images to a folder of tokens."""

from typing import TYPE_CHECKING

from dove.commands.encode_shards import EncodeOptions, ShardEncoder
from dove.errors import UserError

if TYPE_CHECKING:
    from dove.store import TokenStore


def run(options: EncodeOptions) -> None:
    """Encode what is not encoded yet."""
    from dove.data.dataset import Unreadable, summarise_unreadable
    from dove.data.progress_bar import ProgressBar

    store, encoder = prepare(options)
    missing = store.missing()
    total = store.manifest.records
    done = total - sum(len(store.positions(index)) for index in missing)
    with ProgressBar(total=total, initial=done) as progress:
        if options.engine == "ray":
            from dove.commands.encode_ray import encode_on_cluster

            encode_on_cluster(options, store, missing, progress)
        else:
            for index in missing:
                store.write(index, encoder.shard(store.positions(index), progress))
    unreadable: list[Unreadable] = []
    lengths: list[int] = []
    for index in range(store.manifest.num_shards):
        some, lost = store.summary(index)
        lengths += some
        unreadable += lost
    mean = f", {sum(lengths) / len(lengths):.1f} tokens each on average" if lengths else ""
    print(f"{len(lengths)} images in {options.output}{mean}")
    if unreadable:
        raise UserError(summarise_unreadable(unreadable, total))


def prepare(options: EncodeOptions) -> "tuple[TokenStore, ShardEncoder]":
    """Open the store that the options describe, new or unfinished, and make the encoder that fills it."""
    from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
    from dove.data.names import readable
    from dove.store import Manifest, TokenStore

    encoder = ShardEncoder(options)
    manifest = Manifest(
        model=options.model,
        checkpoint_sha256=checkpoint_sha256(resolve_checkpoint(options.model)),
        num_tokens=str(encoder.policy),
        max_tokens=encoder.model.max_tokens,
        token_dim=encoder.token_dim,
        dtype=options.dtype,
        source=[readable(name) for name in options.images],
        records=len(encoder.dataset),
        shard_size=options.shard_size,
        precision=options.precision,
        query=encoder.query,
    )
    return TokenStore.create(options.output, manifest), encoder
