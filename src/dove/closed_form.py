"""A start from linear algebra instead of noise.

Principal components of pixel patches give the linear image ends, variances over a sample of images give the order of the
latents' bands, and the transformers start as the identity on top: token i is a copy of band i. Cut after k tokens, such a
model already rebuilds an image as well as k bands can, and training starts from there.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.errors import UserError
from dove.models.token_decoder import BandTokenDecoder
from dove.models.token_generator import BandTimestamps
from dove.models.vqgan import VQGAN, ShortcutVQGAN
from dove.tokenizer import Dove

BAND_GAIN = 0.1
"""Bands enter the residual stream this small, so that the layer norms, whose scale the position code then sets, are nearly
linear in them."""


def principal_components(
    cells: Float[Tensor, "M P"], count: int
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P count"]]:
    """Mean and the ``count`` strongest principal directions (orthonormal columns) of M vectors."""
    mean = cells.mean(0)
    centred = (cells - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))
    return mean, vectors.flip(1)[:, :count].float()


@torch.no_grad()
def start_from_patches(vqgan: VQGAN, images: Float[Tensor, "M 3 S S"]) -> None:
    """Set the linear shortcut to the principal components of the images' cells and their transpose.

    Args:
        vqgan: image ends with a linear shortcut.
        images: a few thousand, in [-1, 1].

    Raises:
        UserError: if the image ends have no shortcut.
    """
    if not isinstance(vqgan, ShortcutVQGAN):
        raise UserError("start=components needs a VQGAN with linear_shortcut=True")
    cell = vqgan.cell
    cells = nn.functional.unfold(images, cell, stride=cell).transpose(1, 2).flatten(0, 1)  # (M * N, 3 * cell**2)
    mean, directions = principal_components(cells, vqgan.config.channels)
    filters = directions.T.reshape(-1, 3, cell, cell)
    assert vqgan.embed.bias is not None
    assert vqgan.unembed.bias is not None
    vqgan.embed.weight.copy_(filters)
    vqgan.embed.bias.copy_(-directions.T @ mean)
    vqgan.unembed.weight.copy_(filters)
    # Only the mean colour comes back: a transposed convolution has one bias a channel, not one a pixel.
    vqgan.unembed.bias.copy_(mean.view(3, -1).mean(1))


@torch.no_grad()
def start_from_bands(model: Dove, images: Float[Tensor, "M 3 S S"]) -> None:
    """Sort the bands by what ``images`` (a few thousand, in [-1, 1]) hold in them and start the transformers as the identity.

    Raises:
        UserError: if the model has no bands, or widths that a copy does not fit through.
    """
    generator, decoder = model.generator, model.token_decoder
    if not (isinstance(generator.timestamps, BandTimestamps) and isinstance(decoder, BandTokenDecoder)):
        raise UserError("start=components needs a model with token_basis=bands")
    channels, width = model.config.vqgan.channels, model.config.generator.hidden_size
    if len({width, model.config.token_dim, model.config.decoder.hidden_size}) > 1 or channels + 4 > width:
        raise UserError(
            f"start=components needs token_dim and both hidden sizes equal and 4 above the {channels} latent channels"
        )
    latents = torch.cat([model.latents(part) for part in images.split(256)])
    for bands in (generator.timestamps.bands, decoder.bands):
        bands.fit(latents)

    # The position code behind the band is (c, -c): zero mean and the same norm at every position, so the layer norms only
    # ever divide by a constant.
    half = (width - channels) // 4 * 2
    codes = slice(channels, channels + half), slice(channels + half, channels + 2 * half)
    generator.timestamps.projection.weight.zero_()
    generator.timestamps.projection.bias.zero_()
    generator.timestamps.projection.weight[:channels, width:] = BAND_GAIN * torch.eye(channels)
    decoder.positions.zero_()
    for sign, code in zip((1, -1), codes, strict=True):
        generator.timestamps.projection.weight[code, :half] = sign * torch.eye(half)
        decoder.positions[:, code] = sign * BAND_GAIN * generator.timestamps.encodings[:, :half]
    for projection in (generator.token_projection, decoder.token_projection):
        projection.weight.copy_(torch.eye(width))
        projection.bias.zero_()
    for backbone in (generator.backbone, decoder.backbone):
        for layer in backbone.model.layers:
            for last in (layer.attention.dense, layer.mlp.dense_4h_to_h):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    spread = (half / width) ** 0.5  # standard deviation of (c, -c), whose squares sum to half
    decoder.latent_projection.weight.zero_()
    decoder.latent_projection.weight[:, :channels] = spread * (1 + BAND_GAIN * spread) / BAND_GAIN * torch.eye(channels)
    decoder.latent_projection.bias.zero_()
