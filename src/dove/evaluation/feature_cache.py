"""Pooled features of frozen tokenizers, cached on disk."""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dove.data.dataset import Unreadable
from dove.errors import UserError
from dove.evaluation.common import Images, Subject
from dove.evaluation.report import cache_folder
from dove.lengths import parse_length_policy
from dove.protocol import Layered, encode_each
from dove.runtime import save_outputs

VERSION = 1  # Version of the features, increased with every change, so that old files are no longer found
TOKENS, LATENTS, PATCHES = "tokens", "latents", "patches"
PATCHES_A_SIDE = 8
"""Raw patches along a side of an image, which are probed beside what a model makes of it."""


@dataclass(frozen=True)
class FeatureSource:
    """Choice of the vectors of a model that are pooled."""

    layer: int | str  # Block of the token generator, from 1; "latents", the VQGAN's; "tokens"; or "patches" of pixels
    num_tokens: str | None = None  # Length policy of tokens; None for everything else

    def __str__(self) -> str:
        if self.num_tokens is not None:
            return f"{self.layer}@{self.num_tokens}"
        return f"layer {self.layer}" if isinstance(self.layer, int) else self.layer


@dataclass(frozen=True, eq=False)
class PooledFeatures:
    """One vector for each readable image."""

    keys: list[str]  # Keys of the images' records
    values: Float[np.ndarray, "n F"]
    lengths: Int[np.ndarray, " n"]  # Number of vectors that were pooled


def pool(values: Float[Tensor, "B S F"], mask: Bool[Tensor, "B S"] | None = None) -> Float[Tensor, "B 2*F"]:
    """Concatenate mean and maximum over the vectors of each image."""
    if mask is None:
        return torch.cat([values.mean(1), values.amax(1)], dim=1)
    dropped = ~mask[..., None]
    mean = values.masked_fill(dropped, 0).sum(1) / mask.sum(1, keepdim=True)
    return torch.cat([mean, values.masked_fill(dropped, -torch.inf).amax(1)], dim=1)


@torch.no_grad()
def extract(
    subject: Subject, sources: Sequence[FeatureSource], pixels: Float[Tensor, "B 3 S S"]
) -> dict[FeatureSource, tuple[Tensor, Tensor]]:
    """Compute pooled features (B, F) and the number of pooled vectors (B,), by source, on the CPU."""
    model, pixels = subject.tokenizer, pixels.to(subject.device)
    found: dict[FeatureSource, tuple[Tensor, Tensor]] = {}
    policies = {source: source.num_tokens for source in sources if source.num_tokens is not None}
    if policies:
        for source, tokens in zip(policies, encode_each(model, pixels, list(policies.values())), strict=True):
            found[source] = pool(tokens.values, tokens.mask), tokens.lengths
    grids: dict[int | str, Tensor] = {}
    if any(source.layer == PATCHES for source in sources):
        cells = F.pixel_unshuffle(pixels, model.image_size // PATCHES_A_SIDE)
        grids[PATCHES] = cells.flatten(2).transpose(1, 2)
    if isinstance(model, Layered):
        if any(source.layer == LATENTS for source in sources):
            grids[LATENTS] = model.latents(pixels)
        if any(isinstance(source.layer, int) for source in sources):
            grids |= dict(enumerate(model.hidden_layers(pixels), 1))
    for source in sources:
        if source not in found:
            grid = grids[source.layer]
            found[source] = pool(grid), torch.full((len(grid),), grid.shape[1])
    for source, (values, _) in found.items():
        if not values.isfinite().all():
            raise UserError(f"{subject.name}, {source}: some features are not finite; check the checkpoint")
    return {source: (values.float().cpu(), lengths.cpu()) for source, (values, lengths) in found.items()}


class FeatureCache:
    """Features of one model and one set of images, in a file for each source: a further length is extracted alone."""

    def __init__(self, subject: Subject, images: Images, batch_size: int):
        self.subject, self.images, self.batch_size = subject, images, batch_size

    def collect(self, sources: Sequence[FeatureSource], role: str) -> dict[FeatureSource, PooledFeatures]:
        """Load or extract the features of all readable images, by source."""
        found = {source: features for source in sources if (features := self._load(source))}
        missing = [source for source in sources if source not in found]
        return found | self._extract(missing, role) if missing else found

    def _extract(self, sources: Sequence[FeatureSource], role: str) -> dict[FeatureSource, PooledFeatures]:
        keys: list[str] = []
        parts: dict[FeatureSource, list[tuple[Tensor, Tensor]]] = {source: [] for source in sources}
        size, description = self.subject.tokenizer.image_size, f"{self.subject.name}: features of {role}"
        for batch in self.images.batches(size, self.batch_size, description):
            keys += batch.keys
            for source, pooled in extract(self.subject, sources, batch.pixels).items():
                parts[source].append(pooled)
        found = {}
        for source, pooled_parts in parts.items():
            values, lengths = (torch.cat(column).numpy() for column in zip(*pooled_parts, strict=True))
            found[source] = PooledFeatures(keys, values, lengths)
            np.savez(
                buffer := io.BytesIO(),
                keys=np.array(keys, dtype=str),
                values=values,
                lengths=lengths,
                unreadable=np.array([item.key for item in self.images.unreadable.values()], dtype=str),
                reasons=np.array([item.reason for item in self.images.unreadable.values()], dtype=str),
            )
            try:
                save_outputs({self._file(source): buffer.getvalue()})
            except UserError as error:  # no room is no reason to lose the evaluation
                warnings.warn(f"not cached: {error}", stacklevel=2)
        return found

    def _file(self, source: FeatureSource) -> Path:
        size = self.subject.tokenizer.image_size
        key = f"{VERSION} {self.subject.sha256} {self.images.sha256} {self.images.keys_sha256} {size} {source}"
        if source.num_tokens and parse_length_policy(source.num_tokens, self.subject.tokenizer.max_tokens).collective:
            key += f" {self.batch_size}"  # the images of a batch share their tokens
        return cache_folder("features") / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"

    def _load(self, source: FeatureSource) -> PooledFeatures | None:
        try:
            with self._file(source).open("rb") as file, np.load(file) as arrays:  # np.load leaves a damaged file open
                stored = dict(arrays)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # missing or damaged
            return None
        unreadable = zip(stored["unreadable"].tolist(), stored["reasons"].tolist(), strict=True)
        self.images.unreadable |= {key: Unreadable(key, reason) for key, reason in unreadable}
        return PooledFeatures(stored["keys"].tolist(), stored["values"], stored["lengths"])
