"""What one step changes, and that the recipe can learn."""

from dataclasses import replace

import pytest
import torch
from dove.config import DoveTrainConfig, VQGANTrainConfig
from dove.models.vqgan import make_vqgan
from dove.tokenizer import Dove
from dove.training.objectives import DoveObjective, VQGANObjective, make_objective


def batch(count: int, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic", align_corners=False).clamp(-1, 1)


def make(config: DoveTrainConfig) -> DoveObjective:
    torch.manual_seed(0)
    objective = make_objective(config, Dove(config.model))
    assert isinstance(objective, DoveObjective)
    return objective


def test_gradients_reach_everything_but_the_codebook(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    # Without any EOS the loss of images above the threshold would not see the EOS head.
    objective.threshold.load_state_dict({"means": [1e9]})
    objective(batch(4), 10_000).loss.backward()
    silent = {name for name, p in objective.model.named_parameters() if p.grad is None}
    assert silent == {"vqgan.model.quantize.embedding.weight"}
    head = objective.model.generator.eos_head.projection.weight
    assert head.grad is not None and head.grad.abs().sum() > 0


def test_the_eos_loss_is_silent_at_the_start_of_its_ramp(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    objective(batch(4), 0).loss.backward()
    head = objective.model.generator.eos_head.projection.weight
    assert head.grad is not None and head.grad.abs().sum() == 0


def test_tokens_after_the_eos_get_no_gradient_from_the_reconstruction(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    objective.model.generator.eos_head.projection.bias.data.fill_(9.0)  # EOS at position 2: one token is kept
    seen = {}

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen["tokens"] = output

    objective.model.generator.token_projection.register_forward_hook(keep)
    result = objective(batch(2), 0)
    result.loss.backward()
    gradient = seen["tokens"].grad
    assert gradient[:, 0].abs().sum() > 0
    assert gradient[:, 1:].abs().sum() == 0


def test_the_threshold_is_the_mean_of_earlier_steps(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    losses = [float(objective(batch(4, seed), 0).metrics["rec"]) for seed in range(3)]
    assert objective.threshold.value == pytest.approx(sum(losses) / 3)


def test_without_a_discriminator_none_is_made(tiny_training: DoveTrainConfig) -> None:
    assert make(tiny_training).discriminator is None
    small = replace(tiny_training.loss.discriminator, width=8, layers=1)
    with_gan = make(replace(tiny_training, loss=replace(tiny_training.loss, gan=0.1, discriminator=small)))
    images = batch(2)
    result = with_gan(images, 0)
    with_gan.adversary_loss(images, result.reconstruction).backward()
    assert all(p.grad is None for p in with_gan.model.parameters())
    assert all(p.grad is not None for p in with_gan.discriminator.parameters())


def test_eight_images_are_learned_by_heart(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    images = batch(8)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    losses = []
    for step in range(120):
        result = objective(images, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.metrics["mse"]))
    assert losses[-1] < 0.05 * losses[0]


def test_the_vqgan_stage_learns_through_its_codebook(vqgan_training: VQGANTrainConfig) -> None:
    torch.manual_seed(0)
    objective = VQGANObjective(vqgan_training, make_vqgan(vqgan_training.model))
    images = batch(8)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(40):
        result = objective(images, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        first, last = (first or result.loss.item()), result.loss.item()
    assert last < 0.5 * first
    assert objective.model.model.quantize.embedding.weight.grad.abs().sum() > 0
    assert set(objective.previews(objective.model, images)) == {"continuous", "quantized"}
