"""What one step changes, and that the recipe can learn."""

from dataclasses import replace

import pytest
import torch

from dove.config import DoveTrainConfig, PrefixTrainConfig, VQGANTrainConfig
from dove.errors import UserError
from dove.lengths import Auto
from dove.models.eos import QualityEosHead
from dove.models.vqgan import make_vqgan
from dove.tokenizer import Dove
from dove.training.objectives import DoveObjective, PrefixObjective, VQGANObjective, make_objective


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
    assert head.grad is not None
    assert head.grad.abs().sum() > 0


def test_the_eos_loss_is_silent_at_the_start_of_its_ramp(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    objective(batch(4), 0).loss.backward()
    head = objective.model.generator.eos_head.projection.weight
    assert head.grad is not None
    assert head.grad.abs().sum() == 0


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


def make_prefix(config: PrefixTrainConfig) -> PrefixObjective:
    torch.manual_seed(0)
    objective = make_objective(config, Dove(config.model))
    assert isinstance(objective, PrefixObjective)
    return objective


def test_drawn_lengths_follow_from_the_step_and_cover_the_range(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(prefix_training)
    assert torch.equal(objective.draw_lengths(9, 5), objective.draw_lengths(9, 5))
    assert not torch.equal(objective.draw_lengths(9, 5), objective.draw_lengths(9, 6))
    lengths = objective.draw_lengths(4000, 0)
    assert set(lengths.tolist()) == set(range(1, 17))
    counts = lengths.bincount()
    assert counts[1] > 2 * counts[16] > 0


def test_the_predicted_quality_becomes_right(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(prefix_training)
    images = batch(8)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    for step in range(150):
        result = objective(images, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert result.metrics["quality_error_db"] < 2.5


def test_the_quality_head_ends_where_its_prediction_meets_the_target() -> None:
    head = QualityEosHead(4, target=21.0)
    quality = torch.tensor([[18.0, 20.0, 21.5, 23.0]])
    head.projection = torch.nn.Identity()
    scores = head(((quality - 20) / 10)[..., None])
    assert scores.quality is not None
    torch.testing.assert_close(scores.quality, quality)
    # The third token is the first to reach 21 dB, so EOS is at the fourth position.
    assert Auto().lengths(scores).tolist() == [3]
    assert Auto(eos_bias=1.5).lengths(scores).tolist() == [2]
    assert Auto(eos_bias=-9.0).lengths(scores).tolist() == [4]
    assert scores.probability[0, 0] == 0


def test_recipes_refuse_heads_they_cannot_train(
    tiny_training: DoveTrainConfig, prefix_training: PrefixTrainConfig
) -> None:
    with pytest.raises(UserError, match="eos-head quality"):
        replace(prefix_training, model=tiny_training.model)
    with pytest.raises(UserError, match="binary or vocab"):
        replace(tiny_training, model=prefix_training.model)
