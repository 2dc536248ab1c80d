"""Q-DOVE: tokens conditioned on a query (section 2.3)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dove.config import DoveConfig
from dove.errors import UserError
from dove.lengths import LengthPolicy, parse_length_policies
from dove.models.eos import EosScores
from dove.models.token_generator import GeneratorOutput
from dove.protocol import Tokenizer, encode_each
from dove.query.config import QDoveConfig
from dove.query.generator import QueryTokenGenerator
from dove.query.words import QueryTokenizer, QueryTokens, is_null
from dove.tokenizer import Dove, fitting_images
from dove.tokens import Tokens

Query = str | None | Sequence[str | None] | Sequence[Sequence[str | None]]
"""One query for all images, one for each, or a list for each; None or "null" asks for the whole image."""


class QDove(Dove):
    """A ``Dove`` that takes queries: the tokens describe what is asked for first.

    Without a query, or with "null", it gives the tokens of the ``Dove`` that it was made from.
    """

    settings = QDoveConfig
    config: QDoveConfig
    generator: QueryTokenGenerator

    def make_generator(self, config: DoveConfig) -> QueryTokenGenerator:
        """Make the token generator with query conditioning."""
        assert isinstance(config, QDoveConfig)
        return QueryTokenGenerator(config)

    @cached_property
    def query_tokenizer(self) -> QueryTokenizer:
        """Text tokenizer of queries, loaded when first used."""
        settings = self.config.query
        return QueryTokenizer(
            settings.tokenizer,
            vocab_size=settings.vocab_size,
            max_length=settings.max_length,
            null_word=settings.null == "word",
            known=settings.known,
        )

    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto", query: Query = None) -> Tokens:
        """Encode images to tokens, each image for its query; see `Dove.encode`.

        Args:
            images: as there.
            num_tokens: as there; ``auto`` ends where the asked region is good enough.
            query: one for all images; one for each; or a list of several for each, for which the latents are computed once and
                the rows of the result go image by image.

        Raises:
            UserError: as there, and for another number of queries than of images, or an empty query.
        """
        return self.encode_each(images, [num_tokens], query)[0]

    @torch.no_grad()
    def encode_each(
        self, images: Tensor, requests: Sequence[int | str | LengthPolicy], query: Query = None
    ) -> list[Tokens]:
        """Encode the same images and queries by several length policies; see :meth:`encode`."""
        queries, image_of = pair_queries(query, len(images))
        wordless = self.config.query.null == "nothing" and all(is_null(text) for text in queries)
        if wordless and image_of == list(range(len(images))):
            return super().encode_each(images, requests)
        policies = parse_length_policies(requests, self.config.max_tokens)
        images = fitting_images(images, self.image_size, self.device)
        rows = torch.tensor(image_of, device=images.device)
        prefix = self.generator.embed_with(self.vqgan.encode(images)[rows], self.query_tokens(queries))
        return self._encode(images[rows], prefix, self.prior.encode(images)[rows], policies)

    def generate(self, images: Float[Tensor, "B 3 S S"], num_tokens: int | None = None) -> GeneratorOutput:
        """Generate tokens for the null query, with gradients; see `Dove.generate`."""
        if self.config.query.null == "nothing":
            return super().generate(images, num_tokens)
        return self.generate_for(images, self.query_tokens([None] * len(images)), num_tokens)

    @torch.no_grad()
    def score_lengths(
        self, images: Float[Tensor, "B 3 S S"], query: str | None = None
    ) -> tuple[Float[Tensor, "B K D"], EosScores]:
        """Encode images in [-1, 1] to all K tokens for one query, with the EOS scores of each number of them."""
        if is_null(query):
            return super().score_lengths(images)
        output = self.generate_for(images, self.query_tokens([query] * len(images)))
        return output.values, output.eos

    def query_tokens(self, queries: Sequence[str | None]) -> QueryTokens:
        """Convert queries to word ids on the model's device."""
        return self.query_tokenizer(queries).to(self.device)

    def generate_for(
        self, images: Float[Tensor, "B 3 S S"], query: QueryTokens, num_tokens: int | None = None
    ) -> GeneratorOutput:
        """Generate tokens as :meth:`generate` does, with one query for each image and with gradients."""
        prefix = self.generator.embed_with(self.vqgan.encode(images), query)
        return self.generator(prefix, self.prior.encode(images), num_tokens)


def require_queries(model: Tokenizer, query: str | None) -> None:
    """Raise ``UserError`` for a query to a model that takes none, or an empty one."""
    if not is_null(query) and not isinstance(model, QDove):
        raise UserError("this model takes no queries; leave --query out or pass --model with the folder of a Q-DOVE")


def encode_asked(
    model: Tokenizer, images: Tensor, requests: Sequence[int | str | LengthPolicy], query: Query = None
) -> list[Tokens]:
    """Encode images by several length policies, for queries where there are any; see :meth:`QDove.encode`.

    Raises:
        UserError: for a query to a model that takes none.
    """
    if isinstance(model, QDove):
        return model.encode_each(images, requests, query)
    for text in pair_queries(query, len(images))[0]:
        require_queries(model, text)
    return encode_each(model, images, requests)


def pair_queries(query: Query, images: int) -> tuple[list[str | None], list[int]]:
    """Flatten queries to one list, with the index of the image that each belongs to."""
    if query is None or isinstance(query, str):
        query = [query] * images
    entries: Sequence[Any] = query if isinstance(query, Sequence) else [query]  # anything else is refused below
    lists = [list(entry) if isinstance(entry, list | tuple) else [entry] for entry in entries]
    if not all(text is None or isinstance(text, str) for texts in lists for text in texts):
        raise UserError(f"query={query!r}: pass a string, None, or a list with strings, None or lists of them")
    if len(lists) != images:
        raise UserError(
            f"{len(lists)} queries for {images} images; pass one for all, one for each, or a list of several for each"
        )
    if [] in lists:
        raise UserError(f"image {lists.index([])} has an empty list of queries; pass at least one, or None")
    return [text for texts in lists for text in texts], [row for row, texts in enumerate(lists) for _ in texts]
