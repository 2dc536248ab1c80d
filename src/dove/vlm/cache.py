"""Tokens of the training images, made once in front of the training."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dove.data.dataset import ImageDataset
from dove.data.progress_bar import ProgressBar
from dove.protocol import Tokenizer
from dove.vlm.config import VLMTrainConfig
from dove.vlm.images import Glimpse, encode_images

BATCH_SIZE = 64
SAMPLE = 256  # Images that a connector's start is fitted to

TokenCache = dict[tuple[Glimpse, str], Float[Tensor, "k D"]]
"""Kept tokens by glimpse and length policy, in half precision (0.05%), as they are by far the largest thing in memory."""


def fill_cache(
    tokenizer: Tokenizer, images: ImageDataset, glimpses: Sequence[Glimpse], config: VLMTrainConfig
) -> TokenCache:
    """Encode all views of all glimpses by all length policies of a training."""
    cache: TokenCache = {}
    views, requests = config.views, list(dict.fromkeys(config.num_tokens))
    jobs = [replace(glimpse, view=view) for view in range(views.count) for glimpse in dict.fromkeys(glimpses)]
    with ProgressBar(total=len(jobs), desc="tokens of the images") as progress:
        for start in range(0, len(jobs), BATCH_SIZE):
            part = jobs[start : start + BATCH_SIZE]
            found = encode_images(tokenizer, images, part, requests, views, config.run.seed)
            for request, tokens in zip(requests, found, strict=True):
                for glimpse, row in zip(part, tokens.ragged(), strict=True):
                    cache[glimpse, request] = row.to("cpu", torch.float16).clone()
            progress.update(len(part))
    return cache


def sample_tokens(tokenizer: Tokenizer, images: ImageDataset, glimpses: Sequence[Glimpse]) -> Float[Tensor, "M K D"]:
    """All tokens of some images from all over the source."""
    some = list(dict.fromkeys(glimpses))
    some = some[:: max(1, len(some) // SAMPLE)][:SAMPLE]
    return encode_images(tokenizer, images, some, [str(tokenizer.max_tokens)])[0].values
