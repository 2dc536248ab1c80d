"""A start from linear algebra instead of noise.

Principal components of pixel patches give the linear image ends, variances over a sample of images give the order of the
latents' bands, and the transformers start as the identity on top: token i is a copy of band i. Cut after k tokens, such a
model already rebuilds an image as well as k bands can, and training starts from there.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dove.errors import UserError
from dove.models.bands import cell_frequencies, cosines
from dove.models.token_decoder import BandTokenDecoder
from dove.models.token_generator import BandTimestamps
from dove.models.vqgan import VQGAN, ShortcutVQGAN
from dove.tokenizer import Dove

BAND_SHARE = 0.1
"""Squared norm of a band in the residual stream, as a share of that of the position code beside it: so little that the layer
norms, whose scale the code then sets, are nearly linear in the bands."""
STREAM_SCALE = 10.0
"""What both have in the residual stream, as a factor: what the blocks add while they learn disturbs a larger stream less."""


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
    shortcut = _shortcut(vqgan)
    cells = nn.functional.unfold(images, shortcut.cell, stride=shortcut.cell).transpose(1, 2).flatten(0, 1)
    _set_shortcut(shortcut, *principal_components(cells, vqgan.config.channels))


@torch.no_grad()
def start_from_cosines(vqgan: VQGAN, images: Float[Tensor, "M 3 S S"]) -> None:
    """Set the linear shortcut to cosine coefficients of the cells, luma and two chromas, and their inverse.

    Luma and chroma are the principal components of the images' colours; which frequencies are held says
    :func:`dove.models.bands.cell_frequencies`.

    Args:
        vqgan: image ends with a linear shortcut.
        images: a few thousand, in [-1, 1].

    Raises:
        UserError: if the image ends have no shortcut.
    """
    shortcut = _shortcut(vqgan)
    mean, colours = principal_components(images.transpose(0, 1).flatten(1).T, 3)
    waves = cosines(shortcut.cell).float()
    filters = [
        torch.einsum("c,uy,vx->cyxuv", colour, waves[:rows], waves[:columns]).flatten(3).flatten(0, 2)
        for colour, (rows, columns) in zip(
            colours.T, cell_frequencies(shortcut.cell, vqgan.config.channels), strict=True
        )
    ]
    directions = torch.cat(filters, dim=1)
    unused = vqgan.config.channels - directions.shape[1]
    _set_shortcut(shortcut, mean.repeat_interleave(shortcut.cell**2), nn.functional.pad(directions, (0, unused)))


def _shortcut(vqgan: VQGAN) -> ShortcutVQGAN:
    if not isinstance(vqgan, ShortcutVQGAN):
        raise UserError("start=components needs a VQGAN with linear_shortcut=True")
    return vqgan


def _set_shortcut(vqgan: ShortcutVQGAN, mean: Float[Tensor, " P"], directions: Float[Tensor, "P C"]) -> None:
    filters = directions.T.reshape(-1, 3, vqgan.cell, vqgan.cell)
    assert vqgan.embed.bias is not None
    assert vqgan.unembed.bias is not None
    vqgan.embed.weight.copy_(filters)
    vqgan.embed.bias.copy_(-directions.T @ mean)
    vqgan.unembed.weight.copy_(filters)
    # Only the mean colour comes back: a transposed convolution has one bias a channel, not one a pixel.
    vqgan.unembed.bias.copy_(mean.view(3, -1).mean(1))


def zero_mean_isometry(count: int) -> Float[Tensor, "width count"]:
    """The orthonormal columns, each of mean zero, that are nearest to those of the identity."""
    last = (count + 1) ** -0.5
    return torch.cat([torch.eye(count) - (1 - last) / count, torch.full((1, count), -last)])


def spread_waves(encodings: Float[Tensor, "K D"], count: int) -> Int[Tensor, " W"]:
    """Columns of sinusoidal timestamp encodings that hold ``count`` waves: sine and cosine of each, W = 2 count.

    Spread on a logarithmic scale from the fastest to half a turn over all K steps: fast waves tell neighbours apart, slow
    ones the start from the end.
    """
    sine, cosine = encodings[0, : encodings.shape[1] // 2 * 2].view(-1, 2).T
    frequencies = torch.atan2(sine, cosine).log()
    wanted = torch.linspace(float(frequencies[0]), math.log(math.pi / len(encodings)), count)
    nearest = (frequencies - wanted[:, None]).abs().argmin(1)
    return torch.stack([2 * nearest, 2 * nearest + 1], dim=1).flatten()


@torch.no_grad()
def start_from_bands(model: Dove, images: Float[Tensor, "M 3 S S"]) -> None:
    """Sort the bands by what ``images`` (a few thousand, in [-1, 1]) hold in them and start the transformers as the identity.

    Raises:
        UserError: if the model has no bands, or widths that a copy does not fit through.
    """
    generator, decoder = model.generator, model.token_decoder
    if not (isinstance(generator.timestamps, BandTimestamps) and isinstance(decoder, BandTokenDecoder)):
        raise UserError("start=components needs a model with token_basis=bands or cosines")
    channels, width = model.config.vqgan.channels, model.config.generator.hidden_size
    if len({width, model.config.token_dim, model.config.decoder.hidden_size}) > 1 or channels + 5 > width:
        raise UserError(
            f"start=components needs token_dim and both hidden sizes equal and 5 above the {channels} latent channels"
        )
    latents = torch.cat([model.latents(part) for part in images.split(256)])
    for bands in (generator.timestamps.bands, decoder.bands):
        bands.fit(latents)

    # Layer norms take the mean away and divide by a norm. The band goes in where it has no mean; the position code behind
    # it is (c, -c), with the same norm at every position, so they only ever divide by about a constant.
    spread = zero_mean_isometry(channels)
    half = (width - channels - 1) // 4 * 2
    gain = (BAND_SHARE * half / channels) ** 0.5
    start = channels + 1
    codes = slice(start, start + half), slice(start + half, start + 2 * half)
    waves = spread_waves(generator.timestamps.encodings, half // 2)
    generator.timestamps.projection.weight.zero_()
    generator.timestamps.projection.bias.zero_()
    generator.timestamps.projection.weight[:start, width:] = STREAM_SCALE * gain * spread
    decoder.positions.zero_()
    for sign, code in zip((1, -1), codes, strict=True):
        generator.timestamps.projection.weight[code, :width] = STREAM_SCALE * sign * torch.eye(width)[waves]
        decoder.positions[:, code] = STREAM_SCALE * sign * generator.timestamps.encodings[:, waves]
    for projection, scale in ((generator.token_projection, 1.0), (decoder.token_projection, STREAM_SCALE)):
        projection.weight.copy_(scale * torch.eye(width))
        projection.bias.zero_()
    for backbone in (generator.backbone, decoder.backbone):
        for layer in backbone.model.layers:
            for last in (layer.attention.dense, layer.mlp.dense_4h_to_h):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    # The layer norms divide by these on average: of the code's squares, which sum to half, and of the band's.
    generated = ((half + gain**2 * channels) / width) ** 0.5
    decoded = ((half * (1 / generated + 1) ** 2 + channels * (gain / generated) ** 2) / width) ** 0.5
    decoder.latent_projection.weight.zero_()
    decoder.latent_projection.weight[:, :start] = generated * decoded / gain * spread.T
    decoder.latent_projection.bias.zero_()
