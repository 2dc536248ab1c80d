"""Tokens in data sets of the ``datasets`` library."""

from typing import Any

import datasets
import torch

from dove.errors import UserError
from dove.processor import ImageProcessor
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove
from dove.tokens import Tokens

TOKENS, LENGTH = "tokens", "length"


def add_tokens(
    dataset: datasets.Dataset,
    model: Dove,
    num_tokens: int | str = "auto",
    *,
    image_column: str = "image",
    query_column: str | None = None,
    batch_size: int = 64,
) -> datasets.Dataset:
    """Add two columns to a data set: ``tokens``, one list of D numbers for each token kept, and ``length``.

    Args:
        dataset: with a column of pictures.
        model: the tokenizer.
        num_tokens: as in ``Dove.encode``; a budget is shared within a batch.
        image_column: the pictures, of feature type ``Image`` or as encoded bytes.
        query_column: texts for a Q-DOVE; None asks for whole images.
        batch_size: images at a time.

    Raises:
        UserError: for a column that is not there, or queries to a model that takes none.
    """
    for column in filter(None, (image_column, query_column)):
        if column not in dataset.column_names:
            raise UserError(f"the data set has no column {column!r}; it has {', '.join(dataset.column_names)}")
    if query_column is not None and not isinstance(model, QDove):
        raise UserError("this model takes no queries; leave query_column out")
    processor = ImageProcessor(model.image_size)

    def encode(rows: Any) -> dict[str, list[Any]]:
        pixels = processor([_picture(image) for image in rows[image_column]])
        pixels = pixels.to(model.device)
        if isinstance(model, QDove):
            tokens = model.encode(pixels, num_tokens, rows[query_column] if query_column else None)
        else:
            tokens = model.encode(pixels, num_tokens)
        ragged = [kept.cpu().numpy() for kept in tokens.ragged()]
        return {TOKENS: ragged, LENGTH: tokens.lengths.tolist()}

    features = dataset.features.copy()
    features[TOKENS] = datasets.List(datasets.List(datasets.Value("float32"), length=model.config.token_dim))
    features[LENGTH] = datasets.Value("int32")
    return dataset.map(encode, batched=True, batch_size=batch_size, features=features)


def read_tokens(dataset: datasets.Dataset, max_tokens: int) -> Tokens:
    """Read the ``tokens`` column as a batch, for ``Dove.decode``.

    Args:
        dataset: data set that ``add_tokens`` made, or rows of it.
        max_tokens: capacity K of the model.

    Raises:
        UserError: if the column is missing, or a row has none or more than K tokens.
    """
    if TOKENS not in dataset.column_names:
        raise UserError(f"the data set has no column {TOKENS!r}; make it with add_tokens")
    return Tokens.from_ragged([torch.tensor(row) for row in dataset[TOKENS]], max_tokens)


def _picture(image: Any) -> Any:
    """Convert a cell of a column of images to what ``ImageProcessor`` takes."""
    return (image["bytes"] or image["path"]) if isinstance(image, dict) else image
