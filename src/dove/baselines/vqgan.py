"""Plain VQGANs as tokenizers: one code per cell of the latent grid, all of them always."""

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from dove.baselines.adapter import FixedLength, build_loaded, read_checkpoint
from dove.baselines.config import MaskgitVQGANConfig
from dove.baselines.maskgit_vqgan import MaskgitVQGAN, from_taming_name
from dove.checkpoint import load_checkpoint, load_weights, resolve_checkpoint
from dove.config import VQGANConfig
from dove.models.vqgan import VQGAN, Codebook, Quantized


class GridTokenizer(FixedLength):
    """A VQGAN with its codebook in the data path."""

    def __init__(self, vqgan: VQGAN | MaskgitVQGAN):
        config = vqgan.config
        super().__init__(config.image_size, config.grid_size**2, vqgan.quantize.embedding.embedding_dim)
        self.config, self.vqgan = config, vqgan

    @property
    def codebook(self) -> Codebook:
        """Codebook of the VQGAN."""
        return self.vqgan.quantize

    def quantized_images(self, images: Float[Tensor, "B 3 S S"]) -> Quantized:
        """Quantise images in [-1, 1], with gradients."""
        return self.vqgan.quantize(self.vqgan.encode(images))

    def quantized_values(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Compute the codebook entries of images in [-1, 1]."""
        return self.vqgan.quantize.lookup(self.quantized_images(images).ids)

    def reconstruct_from(self, values: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1] up to overshoot, from codebook entries, with gradients."""
        return self.vqgan.decode(values)


class VQGANTokenizer(GridTokenizer):
    """DOVE's own VQGAN."""

    vqgan: VQGAN

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "VQGANTokenizer":
        """Load the model folder of a VQGAN stage, for evaluation."""
        folder = resolve_checkpoint(name)
        config, weights = load_checkpoint(folder, VQGANConfig)
        vqgan = VQGAN(config)
        load_weights(vqgan, weights, folder)
        return cls(vqgan).eval()


class MaskgitTokenizer(GridTokenizer):
    """The VQGAN without attention, which TiTok's stage one learns from and ALIT builds on."""

    vqgan: MaskgitVQGAN

    def __init__(self, config: MaskgitVQGANConfig):
        super().__init__(MaskgitVQGAN(config))


LAYOUTS: dict[str, Callable[[str], str]] = {"maskgit-vqgan": str, "taming-vqgan": from_taming_name}
"""Translations of parameter names by published layout."""


def load_published(name: str, path: str | Path) -> MaskgitTokenizer:
    """Load the published VQGAN with 1,024 codes, in fp32, for evaluation."""
    weights = {f"vqgan.{LAYOUTS[name](key)}": tensor for key, tensor in read_checkpoint(path).items()}
    return build_loaded(lambda: MaskgitTokenizer(MaskgitVQGANConfig()), weights)
