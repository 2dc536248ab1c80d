"""Objectives: what one step changes, and that the recipes learn."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dove.errors import UserError
from dove.lengths import Auto
from dove.metrics import psnr
from dove.models.eos import EosScores, QualityEosHead
from dove.models.vqgan import VQGAN
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.config import DoveTrainConfig, PrefixTrainConfig, VQGANTrainConfig
from dove.training.objectives import (
    DoveObjective,
    PrefixObjective,
    Step,
    VQGANObjective,
    draw_lengths,
    prediction_errors,
    random_view,
)


def batch(count: int, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic", align_corners=False).clamp(-1, 1)


def make(config: DoveTrainConfig) -> DoveObjective:
    torch.manual_seed(0)
    return DoveObjective(config, Dove(config.model))


def test_gradients_reach_everything_but_the_codebook(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    # Without any EOS the loss of images above the threshold would not see the EOS head.
    objective.threshold.load_state_dict({"means": [1e9]})
    objective(batch(4), Step(10_000)).loss.backward()
    silent = {name for name, p in objective.model.named_parameters() if p.grad is None}
    assert silent == {"vqgan.quantize.embedding.weight"}
    head = objective.model.generator.eos_head.projection.weight
    assert head.grad is not None
    assert head.grad.abs().sum() > 0


def test_the_eos_loss_is_silent_at_the_start_of_its_ramp(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    objective(batch(4), Step(0)).loss.backward()
    head = objective.model.generator.eos_head.projection.weight
    assert head.grad is not None
    assert head.grad.abs().sum() == 0


def test_the_total_is_table_1s_sum_and_ends_sequences_of_easy_images(tiny_training: DoveTrainConfig) -> None:
    loss = replace(tiny_training.loss, rec=0.7, eos=0.3, kl=0.01)
    objective = make(replace(tiny_training, loss=loss))
    objective.threshold.load_state_dict({"means": [1e9]})  # every image is better
    late = Step(tiny_training.run.steps)
    result = objective(batch(4), late)
    assert objective.eos_weight(late) == pytest.approx(0.3)
    assert result.metrics["eos"] < 0
    terms = {name: float(result.metrics[name]) for name in ("rec", "eos", "kl")}
    assert result.loss.item() == pytest.approx(0.7 * terms["rec"] + 0.3 * terms["eos"] + 0.01 * terms["kl"], rel=1e-4)
    result.loss.backward()
    assert objective.model.generator.eos_head.projection.bias.grad.item() < 0  # a step raises the probability of EOS


def test_tokens_after_the_eos_get_no_gradient_from_the_reconstruction(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    objective.model.generator.eos_head.projection.bias.data.fill_(9.0)  # EOS at position 2: one token is kept
    seen = {}

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen["tokens"] = output

    objective.model.generator.token_projection.register_forward_hook(keep)
    result = objective(batch(2), Step(0))
    result.loss.backward()
    gradient = seen["tokens"].grad
    assert gradient[:, 0].abs().sum() > 0
    assert gradient[:, 1:].abs().sum() == 0


def test_the_threshold_is_the_mean_of_earlier_steps(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    losses = [float(objective(batch(4, seed), Step(seed)).metrics["rec"]) for seed in range(3)]
    assert objective.threshold.value == pytest.approx(sum(losses) / 3)
    assert objective.threshold.step(torch.tensor([9.0]), 3) == pytest.approx(sum(losses) / 3)  # without its own


def test_without_a_discriminator_none_is_made(tiny_training: DoveTrainConfig) -> None:
    assert make(tiny_training).discriminator is None
    small = replace(tiny_training.loss.discriminator, width=8, layers=1)
    with_gan = make(replace(tiny_training, loss=replace(tiny_training.loss, gan=0.1, discriminator=small)))
    images = batch(2)
    result = with_gan(images, Step(0))
    with_gan.adversary_loss(images, result.reconstruction).backward()
    assert all(p.grad is None for p in with_gan.model.parameters())
    assert all(p.grad is not None for p in with_gan.discriminator.parameters())


def test_a_few_images_are_learned_by_heart(tiny_training: DoveTrainConfig) -> None:
    objective = make(tiny_training)
    images = batch(3)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=1e-3)
    losses = []
    for step in range(200):
        result = objective(images, Step(step))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.metrics["mse"]))
    assert losses[-1] < 0.4 * losses[0]


def test_the_vqgan_stage_learns_through_its_codebook(vqgan_training: VQGANTrainConfig) -> None:
    torch.manual_seed(0)
    objective = VQGANObjective(vqgan_training, VQGAN(vqgan_training.model))
    images = batch(8)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(40):
        result = objective(images, Step(step))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        first, last = (first or result.loss.item()), result.loss.item()
    assert last < 0.5 * first
    assert objective.model.quantize.embedding.weight.grad.abs().sum() > 0
    assert set(objective.previews(objective.model, images)) == {"continuous", "quantized"}


def make_prefix(config: PrefixTrainConfig) -> PrefixObjective:
    torch.manual_seed(0)
    return PrefixObjective(config, Dove(config.model))


def test_steps_draw_the_same_again_and_differ(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(prefix_training)
    images = batch(6)
    steps = Step(5), Step(5), Step(6), Step(5, micro_batch=1)
    first, again, later, beside = (objective(images, step).loss.item() for step in steps)
    assert first == again
    assert len({first, later, beside}) == 3


def test_the_loss_is_the_mean_logarithm_and_the_prediction_error(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(prefix_training)
    images, loss = batch(4), prefix_training.loss
    result = objective(images, Step(4))
    draws = objective.draws(Step(4))
    lengths = draw_lengths(4, 16, loss.caps, loss.cap_shares, draws)
    output = objective.model.generate(images)
    rebuilt = objective.model.reconstruct_from(Tokens.cut(output.values, lengths))
    torch.testing.assert_close(result.reconstruction, rebuilt, atol=1e-5, rtol=1e-5)
    errors = (rebuilt - images).square().mean((1, 2, 3))
    bels = (output.eos.quality[torch.arange(4), lengths - 1] - psnr(rebuilt, images)) / 10
    expected = loss.mse * (errors + loss.least_mse).log().mean() + loss.quality * bels.square().mean()
    torch.testing.assert_close(result.loss, expected, atol=1e-5, rtol=1e-5)


@given(pixels=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_view_is_the_same_square_of_both_images(pixels: int, seed: int) -> None:
    images = torch.arange(2 * 3 * 12 * 12, dtype=torch.float32).view(2, 3, 12, 12)
    one, other = random_view(images + 0.5, images, pixels, torch.Generator().manual_seed(seed))
    assert one.shape == (2, 3, 12 - pixels, 12 - pixels)
    assert torch.equal(one - other, torch.full_like(one, 0.5))
    assert set(other.flatten().tolist()) <= set(images.flatten().tolist())


def test_views_are_mirrored_half_of_the_time_and_reach_every_corner() -> None:
    images = torch.arange(144, dtype=torch.float32).view(1, 1, 12, 12).expand(1, 3, 12, 12)
    draws = torch.Generator().manual_seed(0)
    corners = [tuple(random_view(images, images, 2, draws)[1][0, 0, 0, :2].tolist()) for _ in range(200)]
    mirrored = sum(left > right for left, right in corners)
    assert 70 < mirrored < 130
    assert len({min(pair) for pair in corners if pair[0] < pair[1]}) == 9


def test_the_predicted_quality_becomes_right(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(prefix_training)
    images = batch(8)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    for step in range(150):
        result = objective(images, Step(step))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert result.metrics["quality_error_db"] < 2.5


def test_the_quality_head_ends_where_its_prediction_meets_the_target() -> None:
    head = QualityEosHead(4, target=21.0)
    quality = torch.tensor([[18.0, 20.0, 21.5, 23.0]])
    scores = head(torch.randn(1, 4, 4), quality)  # a fresh head predicts what the prior is known to reach
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"caps": (4, 16)},
        {"caps": (), "cap_shares": ()},
        {"cap_shares": (0.5, 0.5, 0.5)},
        {"caps": (0, 4, 16)},
        {"view": -1},
    ],
)
def test_impossible_draws_are_refused(prefix_training: PrefixTrainConfig, wrong: dict) -> None:
    with pytest.raises(UserError, match="must be"):
        replace(prefix_training.loss, **wrong)


class BrightnessDistance(torch.nn.Module):
    """A stand-in for a perceptual network: the difference of the mean brightness."""

    def forward(self, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return (reconstruction.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs()


def with_perceptual_head(config: PrefixTrainConfig) -> PrefixObjective:
    objective = make_prefix(config)
    objective.model.generator.eos_head = QualityEosHead(32, 20.0, outputs=2)
    objective.perceptual = BrightnessDistance()
    return objective


def test_the_second_output_learns_the_perceptual_distance(prefix_training: PrefixTrainConfig) -> None:
    objective = with_perceptual_head(prefix_training)
    images = batch(8)
    head = objective.model.generator.eos_head
    torch.nn.init.constant_(head.projection.bias, 2.0)  # 20 dB off
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-2)  # the head alone: the distances stay what they are
    errors = []
    for step in range(80):
        result = objective(images, Step(step))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        errors.append(float(result.metrics["distance_error_db"]))
    assert errors[0] > 10 > 5 > sum(errors[-20:]) / 20


def test_the_perceptual_distance_is_learned_as_a_logarithm() -> None:
    distances = torch.tensor([[0.1, 0.2, 0.4], [0.01, 0.02, 0.03]])
    eos = EosScores(probability=distances, margin=distances, quality=100 * distances, perceptual=distances)
    errors = prediction_errors(eos, torch.tensor([1, 3]), torch.tensor([20.0, 1.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(errors["quality"], torch.tensor([-1.0, 0.2]))
    torch.testing.assert_close(errors["distance"], torch.tensor([-1.0, torch.log10(torch.tensor(300.0))]))


def test_a_perceptual_head_needs_its_network(prefix_training: PrefixTrainConfig) -> None:
    model = replace(prefix_training.model, quality_perceptual="squeezenet")
    with pytest.raises(UserError, match="perceptual-network squeezenet"):
        replace(prefix_training, model=model)
    with pytest.raises(UserError, match="takes no weights file"):
        replace(prefix_training.loss, perceptual_weights="vgg16.pth")
    assert isinstance(Dove(model).generator.eos_head, QualityEosHead)
    assert Dove(model).generator.eos_head.projection.out_features == 2
