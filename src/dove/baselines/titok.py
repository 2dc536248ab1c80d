"""TiTok: an image as 32 to 128 codes in one dimension ("An Image is Worth 32 Tokens").

The tokens' values are codebook entries of unit length. The two-stage models predict the codes of a VQGAN and use its
decoder; stage one trains the logits of ``decoder`` against that VQGAN's codes, stage two the images of ``reconstruct_from``.
The single-stage models predict pixels and need no VQGAN.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.adapter import FixedLength, build_loaded, read_checkpoint
from dove.baselines.blocks import Transformer, UnitCodebook, embedding, initialise
from dove.baselines.config import TITOKS, TiTokConfig
from dove.baselines.maskgit_vqgan import PixelDecoder, mix_codes
from dove.models.vqgan import Codebook, Quantized


class TiTokEncoder(Transformer):
    """Transformer over patches and learned queries, whose outputs at the queries are latents."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config.transformer)
        width, patch = config.transformer.width, config.patch_size
        self.projection = config.projection
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.class_embedding = embedding(1, width)
        self.positional_embedding = embedding(config.grid_size**2 + 1, width)
        self.latent_token_positional_embedding = embedding(config.num_tokens, width)
        self.ln_pre = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)
        self.conv_out = nn.Conv2d(width, config.token_dim, 1)

    def forward(self, pixels: Float[Tensor, "B 3 S S"], queries: Float[Tensor, "K H"]) -> Float[Tensor, "B K D"]:
        """Compute latents of pixels in [0, 1]."""
        hidden = self.run(self.embed(pixels, queries))[:, -len(queries) :]
        return self.project(self.ln_post(hidden))

    def embed(self, pixels: Float[Tensor, "B 3 S S"], queries: Float[Tensor, "K H"]) -> Float[Tensor, "B M H"]:
        """Embed a class token, the N patches of pixels in [0, 1], and the queries: M is 1 + N + K."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        grid = torch.cat([self.class_embedding.expand(len(patches), -1, -1), patches], 1) + self.positional_embedding
        queries = (queries + self.latent_token_positional_embedding).expand(len(patches), -1, -1)
        return self.ln_pre(torch.cat([grid, queries], 1))

    def project(self, hidden: Float[Tensor, "B K H"]) -> Float[Tensor, "B K D"]:
        """Project hidden states to latents."""
        if self.projection == "scrambled":  # the memory of each (K, H) matrix read as (H, K)
            columns = hidden.reshape(len(hidden), hidden.shape[2], hidden.shape[1])
        else:
            columns = hidden.transpose(1, 2)
        return self.conv_out(columns.unsqueeze(-1)).squeeze(-1).transpose(1, 2)


class TiTokDecoder(Transformer):
    """Transformer over tokens and a mask token per patch, whose outputs at the patches are a grid of hidden states."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config.transformer)
        width = config.transformer.width
        self.grid_size = config.grid_size
        self.decoder_embed = nn.Linear(config.token_dim, width)
        self.class_embedding = embedding(1, width)
        self.positional_embedding = embedding(config.grid_size**2 + 1, width)
        self.mask_token = embedding(1, 1, width)
        self.latent_token_positional_embedding = embedding(config.num_tokens, width)
        self.ln_pre = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)

    def hidden_grid(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B H h w"]:
        """Compute the hidden states of the grid, the input of the heads."""
        tokens = self.decoder_embed(values) + self.latent_token_positional_embedding
        masks = self.mask_token[0].expand(self.grid_size**2, -1)
        grid = torch.cat([self.class_embedding, masks]) + self.positional_embedding
        hidden = self.run(self.ln_pre(torch.cat([grid.expand(len(values), -1, -1), tokens], 1)))
        hidden = self.ln_post(hidden[:, 1 : 1 + self.grid_size**2])
        return torch.unflatten(hidden.transpose(1, 2), 2, (self.grid_size, self.grid_size))


class CodeDecoder(TiTokDecoder):
    """Decoder from tokens to logits of a VQGAN's codes."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config)
        width = config.transformer.width
        self.ffn = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, config.vqgan.codebook_size, 1)
        )

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B N V"]:
        """Compute the logits of the codes."""
        return self.ffn(self.hidden_grid(values)).flatten(2).transpose(1, 2)


class PatchDecoder(TiTokDecoder):
    """Decoder from tokens to pixels in [0, 1], patch by patch, with one convolution over the seams."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config)
        self.patch_size = config.patch_size
        self.ffn = nn.Sequential(nn.Conv2d(config.transformer.width, 3 * config.patch_size**2, 1))
        self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B 3 S S"]:
        """Decode tokens to pixels."""
        # channels are (row, column, colour) of the patch; pixel_shuffle wants colour first
        patches = self.ffn(self.hidden_grid(values)).unflatten(1, (self.patch_size**2, 3)).transpose(1, 2)
        return self.conv_out(F.pixel_shuffle(patches.flatten(1, 2), self.patch_size))


class TiTok(FixedLength):
    """The tokenizer up to the codebook; subclasses decode. :func:`make_titok` makes one."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config.image_size, config.num_tokens, config.token_dim)
        self.config = config
        self.grid_size, self.num_layers = config.grid_size, config.transformer.num_layers  # of patches; of the encoder
        self.encoder = TiTokEncoder(config)
        self.latent_tokens = embedding(config.num_tokens, config.transformer.width)
        self.quantize = UnitCodebook(config.codebook_size, config.token_dim)

    @property
    def codebook(self) -> Codebook:
        """Codebook of the tokens."""
        return self.quantize

    @torch.no_grad()
    def latents(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N H"]:
        """Compute the embedded patches of images in [-1, 1], row by row."""
        return self.encoder.embed((images + 1) / 2, self.latent_tokens)[:, 1 : 1 + self.grid_size**2]

    @torch.no_grad()
    def hidden_layers(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "L B N H"]:
        """Compute the outputs of the encoder's L blocks at the N patches, row by row."""
        embedded = self.encoder.embed((images + 1) / 2, self.latent_tokens)
        return self.encoder.layers(embedded)[:, :, 1 : 1 + self.grid_size**2]

    def quantized_images(self, images: Float[Tensor, "B 3 S S"]) -> Quantized:
        """Quantise images in [-1, 1], with gradients."""
        return self.quantize(self.encoder((images + 1) / 2, self.latent_tokens))

    def quantized_values(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B K D"]:
        """Compute the codebook entries of images in [-1, 1]."""
        return self.quantize.lookup(self.quantized_images(images).ids)


class TwoStageTiTok(TiTok):
    """TiTok that decodes through the codes of a VQGAN, whose codebook and decoder it contains."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config)
        self.decoder = CodeDecoder(config)
        initialise(self, config.transformer)
        self.pixel_quantize = Codebook(config.vqgan.codebook_size, config.vqgan.latent_channels)
        self.pixel_decoder = PixelDecoder(config.vqgan)

    def reconstruct_from(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1] up to overshoot, from tokens, with gradients."""
        mixed = mix_codes(self.decoder(values), self.pixel_quantize.entries())
        return self.pixel_decoder(mixed)


class OneStageTiTok(TiTok):
    """TiTok that predicts pixels, trained end to end at once."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config)
        self.decoder = PatchDecoder(config)
        initialise(self, config.transformer)

    def reconstruct_from(self, values: Float[Tensor, "B K D"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1] up to overshoot, from tokens, with gradients."""
        return self.decoder(values) * 2 - 1


def make_titok(config: TiTokConfig) -> TiTok:
    """Make the TiTok that ``config`` describes."""
    return (TwoStageTiTok if config.head == "codes" else OneStageTiTok)(config)


def load_published(name: str, path: str | Path) -> TiTok:
    """Load the weights of a published checkpoint, in fp32, for evaluation."""
    return build_loaded(lambda: make_titok(TITOKS[name]), read_checkpoint(path))
