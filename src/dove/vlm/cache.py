"""Tokens of all training images, made once in front of the training and kept in a file for further ones."""

import hashlib
import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from dove.data.dataset import ImageDataset
from dove.errors import UserError
from dove.evaluation.common import Subject, hash_images
from dove.lengths import parse_length_policy
from dove.protocol import Tokenizer, device_of
from dove.runtime import save_outputs
from dove.vlm.config import PREFIX, ViewsConfig
from dove.vlm.images import Glimpse, encode_glimpses, load_pixels, load_view

BATCH_SIZE = 64
SAMPLE = 256  # Images that a connector's start is fitted to


class TokenCache:
    """Tokens by glimpse, length policy and view, in half precision (0.05%), as they are by far the largest thing in memory.

    Args:
        glimpses: each once, in the order of the rows; view after view has all of them.
        values: by length policy the kept tokens of all rows, one after the other.
        lengths: by length policy the tokens of each row.
    """

    def __init__(
        self,
        glimpses: Sequence[Glimpse],
        values: dict[str, Float[Tensor, "_ D"]],
        lengths: dict[str, list[int]],
        max_tokens: int,
    ) -> None:
        self.row = {glimpse: number for number, glimpse in enumerate(glimpses)}
        self.values, self.lengths, self.max_tokens = values, lengths, max_tokens
        self._starts = {request: [0, *accumulate(counts)] for request, counts in lengths.items()}

    def __call__(self, glimpse: Glimpse, request: str, view: int = 0) -> Float[Tensor, "k D"]:
        """The kept tokens of a glimpse, fp32; all of them for a random prefix."""
        request = self._stored(request)
        row = view * len(self.row) + self.row[glimpse]
        start, end = self._starts[request][row : row + 2]
        return self.values[request][start:end].float()

    def _stored(self, request: str) -> str:
        return stored_name(request, self.max_tokens)


def stored_name(request: str, max_tokens: int) -> str:
    """A random prefix is cut from all tokens, which are stored once."""
    return str(max_tokens) if request == PREFIX else request


def open_cache(
    subject: Subject,
    images: ImageDataset,
    glimpses: Sequence[Glimpse],
    requests: Sequence[str],
    *,
    views: ViewsConfig,
    seed: int = 0,
    file: str = "",
) -> TokenCache:
    """The tokens from a file, or made now (and then written there)."""
    capacity = subject.tokenizer.max_tokens
    wanted = list(dict.fromkeys(glimpses))
    names = list(dict.fromkeys(stored_name(request, capacity) for request in requests))
    for name in names:
        parse_length_policy(name, capacity)
    recipe = [subject.sha256, hash_images(images), [[one.index, one.query] for one in wanted], repr(views), seed]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    if file and Path(file).is_file():
        return _load(Path(file), key, wanted, names, capacity)
    sequences = _encode(subject, images, wanted, names, views, seed)
    lengths = {name: [len(row) for row in rows] for name, rows in sequences.items()}
    values = {name: torch.cat(rows) for name, rows in sequences.items()}
    if file:
        tensors = {f"values.{name}": tensor for name, tensor in values.items()}
        tensors |= {f"lengths.{name}": torch.tensor(counts) for name, counts in lengths.items()}
        save_outputs({Path(file): save(tensors, metadata={"key": key})})
    return TokenCache(wanted, values, lengths, capacity)


def _load(file: Path, key: str, glimpses: Sequence[Glimpse], names: Sequence[str], capacity: int) -> TokenCache:
    try:
        with safe_open(file, "pt") as stored:
            known = {name.removeprefix("values.") for name in stored.keys()}  # noqa: SIM118
            if (stored.metadata() or {}).get("key") != key or not known.issuperset(names):
                raise UserError(
                    f"{file} holds tokens of another tokenizer, other images or other settings; name another file"
                )
            values = {name: stored.get_tensor(f"values.{name}") for name in names}
            lengths = {name: stored.get_tensor(f"lengths.{name}").tolist() for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it, and it is made again") from error
    return TokenCache(glimpses, values, lengths, capacity)


def _encode(
    subject: Subject,
    images: ImageDataset,
    glimpses: Sequence[Glimpse],
    names: Sequence[str],
    views: ViewsConfig,
    seed: int,
) -> dict[str, list[Float[Tensor, "k D"]]]:
    tokenizer = subject.tokenizer
    device = device_of(tokenizer)
    jobs = [(glimpse, view) for view in range(views.count) for glimpse in glimpses]
    sequences: dict[str, list[Tensor]] = {name: [] for name in names}
    with tqdm(total=len(jobs), desc="tokens of the images", unit="image", disable=None, leave=False) as progress:
        for start in range(0, len(jobs), BATCH_SIZE):
            part = jobs[start : start + BATCH_SIZE]
            pixels = [
                load_view(images, glimpse.index, tokenizer.image_size, views, seed, view) for glimpse, view in part
            ]
            found = encode_glimpses(
                tokenizer, torch.stack(pixels).to(device), names, [glimpse.query for glimpse, _ in part]
            )
            for name, tokens in zip(names, found, strict=True):
                sequences[name] += [row.to("cpu", torch.float16).clone() for row in tokens.ragged()]
            progress.update(len(part))
    return sequences


def sample_tokens(tokenizer: Tokenizer, images: ImageDataset, glimpses: Sequence[Glimpse]) -> Float[Tensor, "M K D"]:
    """All tokens of some images from all over the source."""
    some = list(dict.fromkeys(glimpses))
    some = some[:: max(1, len(some) // SAMPLE)][:SAMPLE]
    pixels = torch.stack([load_pixels(images, glimpse.index, tokenizer.image_size) for glimpse in some])
    queries = [glimpse.query for glimpse in some]
    return encode_glimpses(tokenizer, pixels.to(device_of(tokenizer)), [PREFIX], queries)[0].values
