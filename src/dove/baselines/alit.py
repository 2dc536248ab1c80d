"""ALIT: recurrent roll-outs, each of which adds tokens ("Adaptive Length Image Tokenization via Recurrent Allocation").

Every roll-out runs image tokens, earlier latents and fresh latents through the same transformer again, so the tokens of
roll-out r are no prefix of those of roll-out r + 1. Stage one trains the logits of every roll-out against the VQGAN's
codes, stage two the images of ``reconstruct_from``.

Where the published code and the paper differ, this follows the paper: halting is decided, not drawn, outside
training; every image of a batch gets its own length; and tokens can be decoded without the image they came from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dove.baselines.adapter import build_loaded, read_checkpoint
from dove.baselines.blocks import Transformer, UnitCodebook, embedding, initialise
from dove.baselines.config import ALITS, ALITConfig
from dove.baselines.maskgit_vqgan import MaskgitVQGAN, from_taming_name, mix_codes
from dove.errors import UserError
from dove.lengths import Fixed, LengthPolicy, Trial, parse_length_policy
from dove.models.eos import EosScores
from dove.tokenizer import fitting_images, fitting_tokens
from dove.tokens import Tokens


@dataclass(frozen=True)
class RollOut:
    """Result of one roll-out; L is its number of tokens.

    Attributes:
        latents: tokens before quantisation.
        values: codebook entries of unit length, with the latents' gradient.
        ids: ids of these entries.
        loss: sum of the codebook and the commitment loss.
        codes: the VQGAN's codes of the images, which the logits are trained to predict.
        decode: computes the logits of these codes from values and what is kept of them.
    """

    latents: Float[Tensor, "B L D"]
    values: Float[Tensor, "B L D"]
    ids: Int[Tensor, "B L"]
    loss: Float[Tensor, ""]
    codes: Int[Tensor, "B N"]
    decode: Callable[[Float[Tensor, "B L D"], Bool[Tensor, "B L"]], Float[Tensor, "B N V"]]

    @cached_property
    def logits(self) -> Float[Tensor, "B N V"]:
        """Logits of the VQGAN's codes, computed when they are first asked for: tokens alone need none."""
        return self.decode(self.values, torch.ones_like(self.ids, dtype=torch.bool))


class ALITDecoder(Transformer):
    """Transformer over tokens and a grid of mask tokens, whose outputs at the grid are logits."""

    def __init__(self, config: ALITConfig):
        super().__init__(config.transformer)
        width = config.transformer.width
        self.decoder_embed = nn.Linear(config.token_dim, width)
        self.latent_token_positional_embedding = embedding(config.max_tokens, width)
        self.ln_pre = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, config.vqgan.codebook_size)
        )

    def forward(
        self, values: Float[Tensor, "B L D"], kept: Bool[Tensor, "B L"], grid: Float[Tensor, "M H"]
    ) -> Float[Tensor, "B N V"]:
        """Compute logits at all positions of the grid but its first; tokens that are not kept have no influence."""
        tokens = self.decoder_embed(values) + self.latent_token_positional_embedding[: values.shape[1]]
        hidden = self.ln_pre(torch.cat([grid.expand(len(values), -1, -1), tokens], 1))
        seen = F.pad(kept, (len(grid), 0), value=True)[:, None, None]
        return self.ffn(self.ln_post(self.run(hidden, seen)[:, 1 : len(grid)]))


class ALIT(nn.Module):
    """The ALIT tokenizer; attribute names are the published ones, except inside the VQGAN."""

    def __init__(self, config: ALITConfig):
        super().__init__()
        self.config = config
        width, positions, step = config.transformer.width, config.vqgan.grid_size**2 + 1, config.tokens_per_rollout
        self.encoder = Transformer(config.transformer)
        self.encoder_ln_pre = nn.LayerNorm(width)
        self.encoder_ln_post = nn.LayerNorm(width)
        self.encoder_ln_recursive = nn.LayerNorm(width)
        self.encoder_class_embedding = embedding(1, width)
        self.encoder_positional_embedding = embedding(positions, width)
        self.encoder_mask_token = embedding(1, 1, width)
        self.patch_embed = nn.Conv2d(
            3, width - config.vqgan.latent_channels, config.patch_size, stride=config.patch_size
        )
        self.latent_tokens = embedding(step, width)
        self.latent_token_positional_embedding = embedding(step, width)
        self.timestep_embedding = embedding(config.num_rollouts, step, width)
        self.pre_quantizer_mlp = nn.Linear(width, config.token_dim)
        self.decoder = ALITDecoder(config)
        self.decoder_class_embedding = embedding(1, width)
        self.decoder_positional_embedding = embedding(positions, width)
        self.decoder_mask_token = embedding(1, 1, width)
        initialise(self, config.transformer)
        self.quantize = UnitCodebook(config.codebook_size, config.token_dim)
        self.base_tokenizer = MaskgitVQGAN(config.vqgan)
        self.image_size, self.max_tokens = config.vqgan.image_size, config.max_tokens
        self.grid_size, self.num_layers = config.vqgan.grid_size, config.transformer.num_layers
        self.token_counts = tuple(range(step, self.max_tokens + 1, step))  # those of the roll-outs

    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        """Encode images to tokens; see `Dove.encode`.

        A number is one of ``token_counts``. "auto" stops each image at the first roll-out whose mean absolute error is below
        ``config.error_threshold``, to which an EOS bias is added. Lengths of other policies are rounded down to one of
        ``token_counts``.
        """
        return self.encode_each(images, [num_tokens])[0]

    @torch.no_grad()
    def encode_each(self, images: Tensor, requests: Sequence[int | str | LengthPolicy]) -> list[Tokens]:
        """Encode the same images by several length policies, from the roll-outs of the longest; see `Dove.encode_each`."""
        policies = [self._policy(request) for request in requests]
        images = fitting_images(images, self.image_size, self.latent_tokens.device)
        longest = max(policy.positions(self.max_tokens) for policy in policies)
        roll_outs = list(self.roll_outs(images, longest // self.config.tokens_per_rollout))
        adaptive = not all(isinstance(policy, Fixed) for policy in policies)
        eos = self._eos(images, roll_outs if adaptive else roll_outs[:0])
        trial = Trial(images=images, reconstruct=lambda lengths: self.decode(self._cut(roll_outs, lengths)))
        return [self._cut(roll_outs, policy.lengths(eos, trial)) for policy in policies]

    @torch.no_grad()
    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images from tokens; see `Dove.decode`. Lengths that are none of ``token_counts`` are refused.

        The first tokens of a long sequence are not what ``encode`` gives for a short one.
        """
        device = self.latent_tokens.device
        tokens = fitting_tokens(tokens, num_tokens, self.max_tokens, self.config.token_dim, device)
        odd = set(tokens.lengths.tolist()) - set(self.token_counts)
        if odd:
            raise self._refusal(f"token lengths {sorted(odd)}")
        return self.reconstruct_from(self.logits(tokens.values, tokens.mask)).clamp(-1, 1)

    def roll_outs(self, images: Float[Tensor, "B 3 S S"], count: int | None = None) -> Iterator[RollOut]:
        """Yield the first ``count`` roll-outs (None: all) over images in [-1, 1], with gradients."""
        hidden, codes = self._image_tokens(images)
        roll_out = None
        for number in range(self.config.num_rollouts)[:count]:
            if roll_out and self.config.halting_threshold is not None:
                hidden = self._halt(hidden, roll_out, self.config.halting_threshold)
            hidden = self.encoder.run(self._embed(hidden, number))
            roll_out = self._read(hidden, codes)
            yield roll_out

    def last_roll_out(self, images: Float[Tensor, "B 3 S S"], count: int) -> RollOut:
        """Compute roll-out ``count`` over images in [-1, 1], with gradients, without decoding or halting before it."""
        return self._read(*self._run(images, count))

    @torch.no_grad()
    def latents(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N H"]:
        """Compute the image tokens of images in [-1, 1] in front of the first roll-out, row by row."""
        return self._image_tokens(images)[0][:, 1:]

    @torch.no_grad()
    def hidden_layers(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "L B N H"]:
        """Compute the outputs of the encoder's L blocks in the last roll-out at the N image tokens, row by row.

        No image token is halted before it.
        """
        last = self.config.num_rollouts - 1
        hidden, codes = self._run(images, last)
        return self.encoder.layers(self._embed(hidden, last))[:, :, 1 : 1 + codes.shape[1]]

    def logits(self, values: Float[Tensor, "B L D"], kept: Bool[Tensor, "B L"]) -> Float[Tensor, "B N V"]:
        """Compute logits of the VQGAN's codes, with gradients."""
        masks = self.decoder_mask_token[0].expand(len(self.decoder_positional_embedding) - 1, -1)
        grid = torch.cat([self.decoder_class_embedding, masks]) + self.decoder_positional_embedding
        return self.decoder(values, kept, grid)

    def reconstruct_from(self, logits: Float[Tensor, "B N V"]) -> Float[Tensor, "B 3 S S"]:
        """Rebuild images, in [-1, 1] up to overshoot, from the mean codes under the logits, with gradients."""
        return self.base_tokenizer.decode(mix_codes(logits, self.base_tokenizer.quantize.entries()))

    def _image_tokens(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B M H"], Int[Tensor, "B N"]]:
        """Embed images in [-1, 1], and compute the VQGAN's codes."""
        grid = self.base_tokenizer.encode(images)
        patches = self.patch_embed((images + 1) / 2).flatten(2).transpose(1, 2)
        cells = F.normalize(torch.cat([grid, patches], 2), dim=-1)
        first = self.encoder_class_embedding.expand(len(cells), -1, -1)
        tokens = torch.cat([first, cells], 1) + self.encoder_positional_embedding
        return tokens, self.base_tokenizer.quantize(grid).ids

    def _run(self, images: Float[Tensor, "B 3 S S"], count: int) -> tuple[Float[Tensor, "B T H"], Int[Tensor, "B N"]]:
        """Run the encoder for the first ``count`` roll-outs, without decoding or halting, and give the VQGAN's codes, too."""
        hidden, codes = self._image_tokens(images)
        for number in range(count):
            hidden = self.encoder.run(self._embed(hidden, number))
        return hidden, codes

    def _embed(self, hidden: Float[Tensor, "B S H"], number: int) -> Float[Tensor, "B T H"]:
        """Add the fresh latents of a roll-out, counted from 0."""
        fresh = self.latent_tokens + self.latent_token_positional_embedding + self.timestep_embedding[number]
        norm = self.encoder_ln_recursive if number else self.encoder_ln_pre
        return norm(torch.cat([hidden, fresh.expand(len(hidden), -1, -1)], 1))

    def _read(self, hidden: Float[Tensor, "B T H"], codes: Int[Tensor, "B N"]) -> RollOut:
        """Quantise the latents of a roll-out."""
        latents = self.pre_quantizer_mlp(self.encoder_ln_post(hidden[:, 1 + codes.shape[1] :]))
        quantized = self.quantize(latents)
        return RollOut(latents, quantized.values, quantized.ids, quantized.loss, codes, self.logits)

    def _halt(self, hidden: Float[Tensor, "B S H"], roll_out: RollOut, threshold: float) -> Float[Tensor, "B S H"]:
        """Put the mask token where the decoder is sure of the image's code; in training, with that probability."""
        probability = roll_out.logits.softmax(-1).gather(2, roll_out.codes[..., None])[..., 0]
        halted = probability >= threshold
        if self.training:
            halted &= torch.bernoulli(probability).bool()
        masks = self.encoder_mask_token + self.encoder_positional_embedding[1:]
        first, cells, latents = hidden.tensor_split((1, 1 + halted.shape[1]), dim=1)
        return torch.cat([first, torch.where(halted[..., None], masks, cells), latents], 1)

    def _eos(self, images: Float[Tensor, "B 3 S S"], roll_outs: Sequence[RollOut]) -> EosScores:
        """Compute EOS scores behind the tokens of every roll-out, higher for a better image."""
        margin = images.new_full((len(images), self.max_tokens), -torch.inf)
        for roll_out in roll_outs:
            length = roll_out.values.shape[1]
            if length < self.max_tokens:
                decoded = self.reconstruct_from(roll_out.logits).clamp(-1, 1)
                error = (decoded - images).abs().mean((1, 2, 3)) / 2
                margin[:, length] = self.config.error_threshold - error
        return EosScores(probability=(margin > 0).float(), margin=margin)

    def _cut(self, roll_outs: Sequence[RollOut], lengths: Int[Tensor, " B"]) -> Tokens:
        """Take, for every image, the tokens of the roll-out that has its length."""
        step = self.config.tokens_per_rollout
        numbers = (lengths // step).clamp(1, len(roll_outs))
        rows = [
            self.quantize.lookup(roll_outs[number - 1].ids[image : image + 1])[0]
            for image, number in enumerate(numbers.tolist())
        ]
        return Tokens.from_ragged(rows, self.max_tokens)

    def _policy(self, request: int | str | LengthPolicy) -> LengthPolicy:
        policy = parse_length_policy(request, self.max_tokens)
        asked = policy.positions(self.max_tokens)
        if asked < self.token_counts[0] or (isinstance(policy, Fixed) and asked not in self.token_counts):
            raise self._refusal(f"num_tokens={str(request)!r}")
        return policy

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"{what} does not fit this model; pass auto or one of {', '.join(map(str, self.token_counts))}"
        )


def from_published_name(name: str) -> str:
    """Translate a parameter's name in the published checkpoints to its name here."""
    return from_taming_name(name.replace("base_tokenizer.vqgan.", "base_tokenizer."))


def load_published(name: str, path: str | Path) -> ALIT:
    """Load the weights of a published checkpoint, the averaged ones where it has them, for evaluation."""
    weights = {from_published_name(key): tensor for key, tensor in read_checkpoint(path).items()}
    return build_loaded(lambda: ALIT(ALITS[name]), weights)
