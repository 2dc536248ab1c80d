"""What one step changes, and that the recipe can learn."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dove.errors import UserError
from dove.lengths import Auto
from dove.metrics import psnr
from dove.models.eos import EosScores, QualityEosHead
from dove.models.vqgan import make_vqgan
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training.config import DoveTrainConfig, PrefixTrainConfig, VQGANTrainConfig
from dove.training.objectives import DoveObjective, PrefixObjective, VQGANObjective


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
    return PrefixObjective(config, Dove(config.model))


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


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"log_uniform": 0.0}, {1: 1 / 16, 3: 1 / 16, 16: 1 / 16}),
        ({"log_uniform": 0.0, "whole": 1.0}, {1: 0.0, 3: 0.0, 15: 0.0, 16: 1.0}),
        # P(length 1) = log 2 / log 17, P(length 16) = log(17 / 16) / log 17
        ({"log_uniform": 1.0}, {1: 0.2447, 16: 0.0214}),
        ({"log_uniform": 0.0, "whole": 0.5}, {1: 1 / 32, 3: 1 / 32, 16: 0.5 + 1 / 32}),
        ({"log_uniform": 0.5, "whole": 0.25}, {1: 0.1223 + 1 / 64, 16: 0.0107 + 0.25 + 1 / 64}),
    ],
)
def test_shares_of_the_draws(prefix_training: PrefixTrainConfig, shares: dict, expected: dict) -> None:
    objective = make_prefix(replace(prefix_training, loss=replace(prefix_training.loss, **shares)))
    counts = objective.draw_lengths(4000, 0).bincount(minlength=17) / 4000
    for length, share in expected.items():
        assert counts[length].item() == pytest.approx(share, abs=0.025 if share else 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"log_uniform": 0.5, "whole": 0.6},
        {"whole": -0.1},
        {"prefixes_per_image": 0},
        {"average": "geometric", "gan": 1e-9},
        {"average": "root", "gan": 1e-9},
    ],
)
def test_impossible_draws_are_refused(prefix_training: PrefixTrainConfig, wrong: dict) -> None:
    with pytest.raises(UserError, match="pass"):
        replace(prefix_training.loss, **wrong)


def test_several_prefixes_cost_one_encoding_and_give_the_mean_loss(prefix_training: PrefixTrainConfig) -> None:
    objective = make_prefix(replace(prefix_training, loss=replace(prefix_training.loss, prefixes_per_image=3)))
    images, calls = batch(2), []
    encode = objective.model.vqgan.encode
    objective.model.vqgan.encode = lambda pixels: calls.append(len(pixels)) or encode(pixels)
    result = objective(images, 4)
    assert calls == [2]
    lengths = objective.draw_lengths(6, 4).view(3, 2)
    expected = []
    output = objective.model.generate(encode(images))
    for cut in lengths:
        rebuilt = objective.model.reconstruct_from(Tokens.cut(output.values, cut).values)
        foreseen = output.eos.quality[torch.arange(2), cut - 1]
        bels = (foreseen - psnr(rebuilt, images)) / 10
        expected.append((rebuilt - images).square().mean() + 0.1 * bels.square().mean())
        if cut is lengths[0] or torch.equal(cut, lengths[0]):
            torch.testing.assert_close(result.reconstruction, rebuilt)
    torch.testing.assert_close(result.loss, torch.stack(expected).mean())


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("arithmetic", lambda losses: losses.mean()),
        ("root", lambda losses: 2 * losses.sqrt().mean().log()),
        ("geometric", lambda losses: losses.log().mean()),
    ],
)
def test_losses_are_averaged_as_asked(
    prefix_training: PrefixTrainConfig, average: str, expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    loss = replace(prefix_training.loss, average=average, quality=0.0)
    objective = make_prefix(replace(prefix_training, loss=loss))
    images = batch(4)
    result = objective(images, 1)
    terms = objective.reconstruction_terms(result.reconstruction, images)
    assert result.loss.item() == pytest.approx(expected(terms["rec"]).item())


class BrightnessDistance(torch.nn.Module):
    """A stand-in for a perceptual network: the difference of the mean brightness."""

    def forward(self, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return (reconstruction.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs()


def with_perceptual_head(config: PrefixTrainConfig) -> PrefixObjective:
    loss = replace(config.loss, perceptual=0.0, perceptual_network="none")
    objective = make_prefix(replace(config, loss=loss))
    objective.model.generator.eos_head = QualityEosHead(32, 20.0, outputs=2)
    objective.loss = replace(loss, perceptual=0.1, perceptual_network="squeezenet")
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
        result = objective(images, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        errors.append(float(result.metrics["perceptual_error_db"]))
    assert errors[0] > 10 > 5 > sum(errors[-20:]) / 20


def test_the_perceptual_distance_is_learned_as_a_logarithm(prefix_training: PrefixTrainConfig) -> None:
    objective = with_perceptual_head(prefix_training)
    distances = torch.tensor([[0.1, 0.2, 0.4], [0.01, 0.02, 0.03]])
    eos = EosScores(probability=distances, margin=distances, quality=100 * distances, perceptual=distances)
    errors = objective.foresight_errors(eos, torch.tensor([1, 3]), torch.tensor([20.0, 1.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(errors["quality"], torch.tensor([-1.0, 0.2]))
    torch.testing.assert_close(errors["perceptual"], torch.tensor([-1.0, torch.log10(torch.tensor(300.0))]))


def test_a_perceptual_head_needs_its_network(prefix_training: PrefixTrainConfig) -> None:
    model = replace(prefix_training.model, quality_perceptual="squeezenet")
    with pytest.raises(UserError, match="perceptual-network squeezenet"):
        replace(prefix_training, model=model)
    assert isinstance(Dove(model).generator.eos_head, QualityEosHead)
    assert Dove(model).generator.eos_head.projection.out_features == 2
