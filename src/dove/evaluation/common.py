"""Models and images of an evaluation."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dove.checkpoint import checkpoint_sha256, resolve_checkpoint
from dove.data.dataset import ImageDataset, Unreadable, summarise_unreadable
from dove.data.images import open_images
from dove.data.loader import ImageBatch, ImageLoader
from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.evaluation.networks import loss_networks
from dove.lengths import Fixed, LengthPolicy, parse_length_policy
from dove.processor import ImageProcessor
from dove.protocol import Tokenizer
from dove.registry import load_tokenizer
from dove.runtime import select_device
from dove.training.progress import images_seen

FEW_LENGTHS = 8  # Greatest number of lengths that are all measured


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under evaluation."""

    name: str  # Name that the user gave
    tokenizer: Tokenizer
    device: torch.device
    sha256: str  # Hash of the checkpoint's config and weights
    loss_networks: str | None = None
    """Frozen networks that its losses used, joined by "+"; None where its checkpoint does not say."""
    images_seen: int | None = None
    """Images that its training has shown it, repetitions included; None where no files of that training lie beside it."""
    weights: str = "checkpoint"  # Origin of its weights


def make_slug(name: str) -> str:
    """Convert a model's name to the name of a folder."""
    return name.strip("/.~").replace("/", "-") or "model"


def load_subjects(names: Sequence[str], device: str) -> list[Subject]:
    """Load the models of an evaluation, each once."""
    target = select_device(device)
    return [load_subject(source, target, label) for label, source in labelled(names).items()]


def labelled(names: Sequence[str]) -> dict[str, str]:
    """Split models, each a checkpoint or LABEL=CHECKPOINT, into labels for the report and checkpoints.

    Raises:
        UserError: If several have the same label.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        label, separator, source = name.partition("=")
        if label in found:
            raise UserError(f"several models are called {label}; label each, as in --model A=FOLDER B=FOLDER")
        found[label] = source if separator else name
    return found


def load_subject(source: str, device: torch.device, label: str | None = None) -> Subject:
    """Load one model: a checkpoint of any kind, which reports call by its label or else by its source."""
    folder = resolve_checkpoint(source)
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, nn.Module)
    return Subject(
        label or source,
        tokenizer.to(device),
        device,
        checkpoint_sha256(folder),
        loss_networks(folder),
        images_seen(folder),
    )


def default_lengths(token_counts: Sequence[int]) -> list[int]:
    """Choose lengths of a model to measure at: all, or of many the powers of two and the last."""
    if len(token_counts) <= FEW_LENGTHS:
        return list(token_counts)
    return [*(count for count in token_counts[:-1] if count.bit_count() == 1), token_counts[-1]]


def choose_policies(subject: Subject, requests: Sequence[str] = ()) -> list[LengthPolicy]:
    """Select the lengths among ``requests`` that a model can give, by default some that show its range.

    A model that has one number of tokens for every image gets that one, whatever is asked. What another cannot give is told on
    stderr, as it may be meant for the models beside it.

    Raises:
        UserError: If it can give none of them.
    """
    counts, capacity = subject.tokenizer.token_counts, subject.tokenizer.max_tokens
    if len(counts) == 1:
        return [Fixed(counts[0])]
    fitting: list[LengthPolicy] = []
    left_out: list[LengthPolicy] = []
    for request in requests or [*map(str, default_lengths(counts)), "auto"]:
        beyond = request.strip().isdigit() and int(request) > capacity
        policy = Fixed(int(request)) if beyond else parse_length_policy(request, capacity)
        offered = not isinstance(policy, Fixed) or policy.num_tokens in counts
        (fitting if offered else left_out).append(policy)
    known = ", ".join(map(str, counts)) if len(counts) <= FEW_LENGTHS else f"1 to {capacity}"
    if not fitting:
        raise UserError(
            f"{subject.name} has {known} tokens an image; --num-tokens {' '.join(requests)} asks for none of these"
        )
    if left_out:
        print(f"{subject.name} has {known} tokens an image: without {', '.join(map(str, left_out))}", file=sys.stderr)
    return list(dict.fromkeys(fitting))


def require_capacity(flag: str, lengths: Sequence[int], subject: Subject) -> None:
    """Make sure that a model has numbers of tokens that a flag asks for."""
    capacity = subject.tokenizer.max_tokens
    if not all(1 <= k <= capacity for k in lengths):
        raise UserError(f"{flag} {' '.join(map(str, lengths))}: {subject.name} has 1 to {capacity} tokens")


def label_of(policy: LengthPolicy) -> int | str:
    """Give a length as reports write it."""
    return policy.num_tokens if isinstance(policy, Fixed) else str(policy)


class Images:
    """Images of an evaluation: a source or a random part of it, with a hash of the content.

    Args:
        source: source for ``open_images``.
        limit: greatest number of images, drawn at random; None for all.
        seed: seed of the draw.
        image_column: column of the images in parquet files and hub datasets.
    """

    def __init__(
        self, source: str | Sequence[str], *, limit: int | None = None, seed: int = 0, image_column: str = "image"
    ) -> None:
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} leaves no image; pass at least 1")
        dataset = open_images(source, image_column=image_column, on_error="skip")
        if limit is not None and limit < len(dataset):
            drawn = np.random.default_rng(seed).choice(len(dataset), limit, replace=False)
            dataset = dataset.select(np.sort(drawn).tolist())
        self.source, self.dataset = source, dataset
        self.sha256, self.keys_sha256 = hash_images(dataset)
        self.unreadable: dict[str, Unreadable] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, image_size: int, batch_size: int, description: str) -> Iterator[ImageBatch]:
        """Iterate over all readable images in order, in [-1, 1], under a progress bar.

        Raises:
            UserError: If none is readable.
        """
        loader = ImageLoader(self.dataset, ImageProcessor(image_size), batch_size=batch_size)
        readable = 0
        with ProgressBar(total=len(self), desc=description) as progress:
            for batch in loader:
                readable += len(batch)
                yield batch
                progress.update(len(batch))
        self.unreadable |= {item.key: item for item in loader.unreadable}
        if not readable:
            raise UserError(f"{self.source}: no image is readable; the first: {loader.unreadable[0].reason}")

    def origin(self) -> dict[str, Any]:
        """Describe the images for a report."""
        return {"source": self.source, "images": len(self), "sha256": self.sha256}

    def complain(self) -> None:
        """Report the images that were left out, at the end of a command.

        Raises:
            UserError: If there are any; the message lists them.
        """
        if self.unreadable:
            raise UserError(summarise_unreadable(list(self.unreadable.values()), len(self)))


def hash_images(dataset: ImageDataset) -> tuple[str, str]:
    """Compute the SHA-256 of the encoded images in their order, and that of their keys. Unreadable ones count as empty."""
    contents, keys = hashlib.sha256(), hashlib.sha256()
    for index in ProgressBar(range(len(dataset)), desc="hash of the images"):
        key, data = "", b""
        try:
            raw = dataset.raw(index)
            key, source = raw.key, raw.source
            data = source if isinstance(source, bytes) else Path(str(source)).read_bytes() if source else b""
        except (OSError, UserError):
            pass
        contents.update(hashlib.sha256(data).digest())
        keys.update(f"{key}\n".encode())
    return contents.hexdigest(), keys.hexdigest()
