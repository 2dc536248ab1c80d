"""The DOVE tokenizer: images to latents to tokens, and back."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from dove.checkpoint import load_checkpoint, load_weights, read_model_type, resolve_checkpoint, save_checkpoint
from dove.config import DoveConfig
from dove.errors import UserError
from dove.lengths import LengthPolicy, Trial, parse_length_policies
from dove.models.eos import EosScores
from dove.models.gaussian import GaussianTokenGenerator
from dove.models.patches import PatchAutoencoder
from dove.models.prior import Prior, PriorCode, make_prior
from dove.models.token_decoder import PriorTokenDecoder, TokenDecoder
from dove.models.token_generator import GeneratorOutput, Prefix, TokenGenerator
from dove.models.vqgan import VQGAN
from dove.registry import find_class
from dove.tokens import Tokens

LARGEST_PIXEL = 1.5
"""Largest magnitude of pixels accepted as [-1, 1]: a bicubic resize may overshoot, pixels from 0 to 255 are refused."""

MODEL_CARD = (files("dove") / "configs" / "model_card.md").read_text(encoding="utf-8")
"""Template of the README.md of a checkpoint folder."""


def fitting_images(images: Tensor, side: int, device: torch.device) -> Float[Tensor, "B 3 S S"]:
    """Check that images are (B, 3, side, side) floats in [-1, 1], and move them to a device in fp32.

    Raises:
        UserError: naming what does not fit.
    """
    if not isinstance(images, Tensor):
        raise UserError(
            f"images are of type {type(images).__name__}; pass a tensor in [-1, 1], as ImageProcessor makes it"
        )
    if not images.is_floating_point():
        raise UserError(f"images are {images.dtype}; pass floats in [-1, 1], as ImageProcessor makes them")
    if images.ndim != 4 or images.shape[1:] != (3, side, side):
        raise UserError(f"images are {tuple(images.shape)}; this model takes (B, 3, {side}, {side})")
    if not len(images):
        raise UserError("no image given; pass at least one")
    if not images.abs().amax() <= LARGEST_PIXEL:  # NaN fails this too
        raise UserError(f"images reach from {images.amin():g} to {images.amax():g}; pass pixels in [-1, 1]")
    return images.to(device, torch.float32)


def fitting_tokens(
    tokens: Tokens, num_tokens: int | None, max_tokens: int, token_dim: int, device: torch.device
) -> Tokens:
    """Check tokens, move them to a device in fp32, and cut them at their lengths and at ``num_tokens`` (None: there alone).

    Raises:
        UserError: for what is not B sequences of 1 to ``max_tokens`` finite tokens of width ``token_dim``, padded to (B, K, D),
            or a ``num_tokens`` that is not from 1 to K.
    """
    if not isinstance(tokens, Tokens):
        raise UserError(
            f"tokens are of type {type(tokens).__name__}; pass Tokens(values, lengths), as encode gives them"
        )
    for name, part in (("values", tokens.values), ("lengths", tokens.lengths)):
        if not isinstance(part, Tensor):
            raise UserError(f"the tokens' {name} are of type {type(part).__name__}; pass a tensor")
    values, lengths = tokens.values, tokens.lengths.to(tokens.values.device)
    if values.ndim != 3 or values.shape[1:] != (max_tokens, token_dim):
        raise UserError(f"tokens are {tuple(values.shape)}; this model takes (B, {max_tokens}, {token_dim})")
    if not len(values):
        raise UserError("no token sequence given; pass at least one")
    if lengths.dtype == torch.bool or lengths.is_floating_point() or lengths.is_complex():
        raise UserError(f"token lengths are {lengths.dtype}; pass whole numbers")
    if lengths.shape != values.shape[:1]:
        raise UserError(f"token lengths are {tuple(lengths.shape)} for {len(values)} sequences; pass one for each")
    lengths = lengths.long()  # narrower integers would overflow, and index as a mask
    if not ((lengths >= 1) & (lengths <= max_tokens)).all():
        raise UserError(f"token lengths {lengths.tolist()} are not all from 1 to {max_tokens}")
    if not (values.isfinite().all(dim=2) | ~Tokens(values, lengths).mask).all():
        raise UserError("tokens hold NaN or infinity; pass them as encode gave them")
    tokens = Tokens(values, lengths).to(device, torch.float32)
    return Tokens.cut(tokens.values, tokens.lengths) if num_tokens is None else tokens.truncate(num_tokens)


def cut_by_policy(
    policy: LengthPolicy,
    eos: EosScores,
    values: Float[Tensor, "B k D"],
    images: Float[Tensor, "B 3 S S"],
    max_tokens: int,
    decode: Callable[[Tokens], Tensor],
) -> Tokens:
    """Cut the tokens of the first k positions at the lengths that a policy chooses by their EOS scores, and pad to K.

    Policies that look at reconstructions compare what ``decode`` makes of cut tokens with the images they were made from.
    """

    def cut(lengths: Tensor) -> Tokens:
        return Tokens.cut(values, lengths, max_tokens)

    trial = Trial(images=images, reconstruct=lambda lengths: decode(cut(lengths)))
    return cut(policy.lengths(eos, trial))


class Dove(
    nn.Module, PyTorchModelHubMixin, library_name="dove", tags=["image-tokenizer"], model_card_template=MODEL_CARD
):
    """Tokenizer of images: :meth:`encode` gives a chosen or an adaptive number of tokens, :meth:`decode` rebuilds images.

    ``encode`` and ``decode`` run without gradients. Training calls their stages: ``generate`` and
    ``reconstruct_from``.
    """

    settings: ClassVar[type[DoveConfig]] = DoveConfig
    """Class of the settings in a checkpoint."""

    def __init__(self, config: DoveConfig):
        super().__init__()
        grid_positions = config.vqgan.grid_size**2
        if config.max_tokens != grid_positions:
            raise UserError(
                f"max_tokens={config.max_tokens} differs from the VQGAN's {grid_positions} grid positions; "
                "the token decoder needs one token position for each"
            )
        self.config = config
        self.image_size = config.vqgan.image_size
        """Side S of the images, in pixels."""
        self.max_tokens = config.max_tokens
        """Capacity K."""
        self.token_counts = tuple(range(1, config.max_tokens + 1))
        """Numbers of tokens an image can have: all up to the capacity."""
        self.num_features = config.token_dim
        """Width D of the tokens, as timm's models name it."""
        self.grid_size = config.vqgan.grid_size
        """Side of the latent grid."""
        self.num_layers = config.generator.num_layers
        """Number L of the token generator's blocks."""
        self.predicts_quality = config.eos_head == "quality"
        """True where the EOS head predicts the PSNR."""
        self.vqgan = (PatchAutoencoder if config.autoencoder == "patches" else VQGAN)(config.vqgan)
        self.prior: Prior = make_prior(config)
        self.generator = self.make_generator(config)
        self.token_decoder = (TokenDecoder if config.prior == "none" else PriorTokenDecoder)(config)

    def make_generator(self, config: DoveConfig) -> TokenGenerator:
        """Make the token generator that ``config`` describes; subclasses make their own."""
        return (GaussianTokenGenerator if config.token_kind == "gaussian" else TokenGenerator)(config)

    # no_grad, not inference_mode: a probe or a language model may train on the tokens, which inference tensors refuse.
    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Encode images to tokens.

        Args:
            images: (B, 3, S, S), float in [-1, 1], S = ``config.vqgan.image_size``.
            num_tokens: "auto" up to each image's EOS, a number for all, or any other ``LengthPolicy``.

        Raises:
            UserError: for images or a number of tokens that don't fit the model.
        """
        return self.encode_each(images, [num_tokens])[0]

    @torch.no_grad()
    def encode_each(self, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
        """Encode the same images by several length policies, for little more than the cost of one.

        Args:
            images: as for ``encode``.
            requests: what ``encode`` takes as ``num_tokens``, at least one.

        Returns:
            One ``Tokens`` per request, equal to ``encode(images, request)`` up to rounding.

        Raises:
            UserError: as ``encode`` does.
        """
        policies = parse_length_policies(requests, self.config.max_tokens)
        images = fitting_images(images, self.image_size, self.device)
        prefix = self.generator.embed(self.vqgan.encode(images))
        return self._encode(images, prefix, self.prior.encode(images), policies)

    def _encode(
        self, images: Float[Tensor, "B 3 S S"], prefix: Prefix, code: PriorCode, policies: Sequence[LengthPolicy]
    ) -> list[Tokens]:
        output = self.generator.until(
            prefix,
            code,
            max(policy.positions(self.max_tokens) for policy in policies),
            lambda eos: torch.stack([policy.settled(eos) for policy in policies]).all(0),
            at_least=max(policy.least_positions(self.max_tokens) for policy in policies),
        )
        values = output.values.to(images.dtype)
        return [cut_by_policy(policy, output.eos, values, images, self.max_tokens, self.decode) for policy in policies]

    @torch.no_grad()
    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1], from tokens.

        Args:
            tokens: (B, K, D) values; whatever they hold from their lengths onward is ignored.
            num_tokens: use at most this many tokens of each image; None for all it has.

        Raises:
            UserError: for tokens of another shape or not finite, lengths or a number that is not from 1 to K.
        """
        tokens = fitting_tokens(tokens, num_tokens, self.max_tokens, self.config.token_dim, self.device)
        return self.reconstruct_from(tokens.trim()).clamp(-1, 1).to(tokens.values.dtype)

    def generate(self, images: Float[Tensor, "B 3 S S"], num_tokens: int | None = None) -> GeneratorOutput:
        """Generate the first ``num_tokens`` tokens (None: all K) and their EOS scores, not yet cut, with gradients."""
        prefix = self.generator.embed(self.vqgan.encode(images))
        return self.generator(prefix, self.prior.encode(images), num_tokens)

    @torch.no_grad()
    def score_lengths(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B K D"], EosScores]:
        """Encode images in [-1, 1] to all K tokens, with the EOS scores of each number of them."""
        output = self.generate(images)
        return output.values, output.eos

    @torch.no_grad()
    def latents(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N C"]:
        """Compute the latents of images in [-1, 1]."""
        return self.vqgan.encode(images)

    @torch.no_grad()
    def hidden_layers(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "L B N H"]:
        """Compute the outputs of the generator's L blocks at the N grid positions (row by row), which see no timestamps."""
        return self.generator.transformer.hidden_layers(self.generator.embed(self.vqgan.encode(images)).embeddings)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.token_decoder.positions.device

    def forward_features(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B K D"]:
        """Compute all K tokens of images in [-1, 1], not cut, with gradients, as timm's feature extractors do."""
        return self.generate(images).values

    def reconstruct_from(self, tokens: Tokens) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from cut tokens, with gradients and without clamping."""
        picture = self.prior.picture(tokens)
        latents = self.token_decoder(tokens, picture)
        return self.prior.complete(picture, self.vqgan.decode(latents), tokens.lengths)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub_options: Any) -> "Dove":
        """Load a checkpoint in fp32, for evaluation.

        Args:
            pretrained_model_name_or_path: a folder, a shipped name ("dove-tiny") or a hub id ("owner/name").
            hub_options: for a hub id only: ``revision``, ``token``, ``cache_dir``, ``local_files_only``,
                ``force_download``.

        Raises:
            UserError: if there is no such checkpoint, or it is damaged, or a pickle.
        """
        folder = resolve_checkpoint(pretrained_model_name_or_path, **hub_options)
        kind = find_class(read_model_type(folder))
        if kind is not cls and isinstance(kind, type) and issubclass(kind, cls):
            return kind.from_pretrained(folder)
        config, weights = load_checkpoint(folder, cls.settings)
        model = cls(config)
        load_weights(model, weights, folder)
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **hub_options: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and, where there is none, a README.md.

        Args:
            save_directory: the checkpoint folder; files of an earlier checkpoint are replaced at the very end.
            dtype: type to store floats in, such as ``torch.float16``; None as they are. Loading gives fp32 either way.
            model_card_kwargs: values for the template of the README.
            hub_options: ``push_to_hub=True``, ``repo_id`` and further options of ``push_to_hub``.

        Raises:
            UserError: if the folder cannot be written.
        """
        if hub_options.pop("config", None) is not None:
            raise UserError("a checkpoint is saved with the model's own config; leave the argument config out")
        card = self.generate_model_card(**(model_card_kwargs or {}))
        save_checkpoint(save_directory, self.config, self.state_dict(), dtype=dtype, card=str(card))
        if not hub_options.pop("push_to_hub", False):
            return None
        repo_id = hub_options.pop("repo_id", None) or Path(save_directory).name
        return self.push_to_hub(repo_id, model_card_kwargs=model_card_kwargs, **hub_options)
