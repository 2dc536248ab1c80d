"""The straightforward composition of DOVE from transformers and diffusers, as one writes it on the first day.

It stands beside the package to be measured against, and computes the same tokens and images from the same weights:
language model with its output layer, mask made in every call, all of K positions, and only then the cut at EOS.
"""

import torch
from diffusers import VQModel
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXModel

from dove.config import BackboneConfig, DoveConfig
from dove.models.token_generator import sinusoidal_encoding
from dove.tokenizer import Dove


def neox_config(config: BackboneConfig, vocab_size: int) -> GPTNeoXConfig:
    """Pythia's settings."""
    return GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": config.rotary_fraction,
        },
    )


class Composition(nn.Module):
    """DOVE of ``config``'s sizes with a vocabulary for its EOS."""

    def __init__(self, config: DoveConfig):
        super().__init__()
        self.config = config
        vqgan = config.vqgan
        self.vqgan = VQModel(
            down_block_types=("DownEncoderBlock2D",) * len(vqgan.block_out_channels),
            up_block_types=("UpDecoderBlock2D",) * len(vqgan.block_out_channels),
            block_out_channels=vqgan.block_out_channels,
            layers_per_block=vqgan.layers_per_block,
            latent_channels=vqgan.latent_channels,
            sample_size=vqgan.image_size,
            num_vq_embeddings=vqgan.codebook_size,
            norm_num_groups=vqgan.norm_groups,
            mid_block_add_attention=False,
        )
        self.generator = GPTNeoXForCausalLM(neox_config(config.generator, config.vocab_size))
        self.decoder = GPTNeoXModel(neox_config(config.decoder, config.vocab_size))
        positions, channels = vqgan.grid_size**2, vqgan.latent_channels
        self.latents_in = nn.Linear(channels, config.generator.hidden_size)
        self.grid_positions = nn.Parameter(torch.zeros(positions, config.generator.hidden_size))
        self.tokens_out = nn.Linear(config.generator.hidden_size, config.token_dim)
        self.tokens_in = nn.Linear(config.token_dim, config.decoder.hidden_size)
        self.token_positions = nn.Parameter(torch.zeros(config.max_tokens, config.decoder.hidden_size))
        self.latents_out = nn.Linear(config.decoder.hidden_size, channels)

    @torch.no_grad()
    def encode(self, images: Tensor, num_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, D), zero behind their ends, and lengths (B,); None for each image's own EOS."""
        latents = self.vqgan.encode(images).latents
        latents = latents.flatten(2).transpose(1, 2)
        batch, grid, _ = latents.shape
        count = self.config.max_tokens
        timestamps = sinusoidal_encoding(count, self.config.generator.hidden_size).to(images.device)
        sequence = torch.cat([self.latents_in(latents) + self.grid_positions, timestamps.expand(batch, -1, -1)], dim=1)
        mask = torch.ones(grid + count, grid + count, dtype=torch.bool, device=images.device).tril()
        mask[:grid, :grid] = True
        mask = mask[None, None].repeat(batch, 1, 1, 1)
        output = self.generator(inputs_embeds=sequence, attention_mask=mask, output_hidden_states=True, use_cache=False)
        values = self.tokens_out(output.hidden_states[-1][:, grid:])
        if num_tokens is None:
            ends = output.logits[:, grid:].argmax(-1) == self.config.eos_token_id
            ends[:, 0] = False
            lengths = torch.where(ends.any(1), ends.int().argmax(1), count)
        else:
            lengths = torch.full((batch,), num_tokens, device=images.device)
        kept = torch.arange(count, device=images.device) < lengths[:, None]
        return torch.where(kept[..., None], values, 0), lengths

    @torch.no_grad()
    def decode(self, values: Tensor) -> Tensor:
        """Images in [-1, 1] from tokens that are zero behind their ends."""
        batch, count, _ = values.shape
        hidden = self.tokens_in(values) + self.token_positions
        mask = torch.ones(batch, 1, count, count, dtype=torch.bool, device=values.device)
        hidden = self.decoder(inputs_embeds=hidden, attention_mask=mask, use_cache=False).last_hidden_state
        side = self.config.vqgan.grid_size
        grid = self.latents_out(hidden).transpose(1, 2).unflatten(2, (side, side))
        return self.vqgan.decode(grid, force_not_quantize=True).sample.clamp(-1, 1)


def compose(model: Dove) -> Composition:
    """The composition with the weights of a ``Dove`` whose end is a word of a vocabulary."""
    composed = Composition(model.config).eval()
    generator, decoder = model.generator, model.token_decoder
    composed.vqgan.load_state_dict(model.vqgan.state_dict())
    for target, source in (
        (composed.generator.gpt_neox, generator.transformer),
        (composed.decoder, decoder.transformer),
    ):
        missing, unknown = target.load_state_dict(source.state_dict(), strict=False)
        assert not unknown
        assert missing == ["embed_in.weight"]
    composed.generator.get_output_embeddings().load_state_dict(generator.eos_head.projection.state_dict())
    for target, source in (
        (composed.latents_in, generator.latent_projection),
        (composed.tokens_out, generator.token_projection),
        (composed.tokens_in, decoder.token_projection),
        (composed.latents_out, decoder.latent_projection),
    ):
        target.load_state_dict(source.state_dict())
    with torch.no_grad():
        composed.grid_positions.copy_(generator.grid_positions)
        composed.token_positions.copy_(decoder.positions)
    return composed
