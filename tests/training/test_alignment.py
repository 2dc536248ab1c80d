"""Alignment: heads learn from hidden states and tokens, and every network that a loss has met is told."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dove.config import DoveConfig
from dove.errors import UserError
from dove.tokenizer import Dove
from dove.tokens import Tokens
from dove.training import alignment
from dove.training.alignment import Alignment, masked_mean
from dove.training.config import AlignConfig, PrefixLossConfig, PrefixTrainConfig
from dove.training.objectives import PrefixObjective, weighted_alignment


class Averages(nn.Module):
    """A stand-in for a frozen network: mean colours of a 2 x 2 grid, as 5 features."""

    width = 5

    def maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        small = nn.functional.adaptive_avg_pool2d(images, 2)
        return [torch.cat([small, small[:, :2] ** 2], dim=1)]

    def pooled(self, maps: list[Tensor]) -> Tensor:
        return maps[-1].mean(dim=(2, 3))


@pytest.fixture
def aligned(tiny_dove: Dove, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Alignment with that network."""
    monkeypatch.setattr(alignment, "load_network", lambda name, weights: Averages())
    torch.manual_seed(0)
    return Alignment(AlignConfig(network="squeezenet", enlarge=2), tiny_dove.config)


def test_gradients_reach_the_grid_the_timestamps_and_the_tokens(
    aligned: nn.Module, tiny_dove: Dove, images: torch.Tensor
) -> None:
    output = tiny_dove.generate(images, 6)
    tokens = Tokens.cut(output.values, torch.tensor([2, 6, 4]))
    losses = aligned(output, tokens, images)
    assert set(losses) == {"align_grid", "align_hidden", "align_tokens"}
    assert all(0 <= float(loss.detach()) <= 2 for loss in losses.values())
    for name, part in (("align_grid", output.grid), ("align_hidden", output.hidden), ("align_tokens", output.values)):
        (gradient,) = torch.autograd.grad(losses[name], part, retain_graph=True)
        assert gradient.abs().sum() > 0
        if name != "align_grid":  # what is cut teaches nothing
            assert torch.equal(gradient.abs().amax(-1) > 0, tokens.mask)


def test_beside_a_prior_the_learned_numbers_of_the_first_token_alone_are_aligned(
    tiny_config: DoveConfig, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "load_network", lambda name, weights: Averages())
    model = Dove(replace(tiny_config, prior="cosines", prior_numbers=8))
    output = model.generate(images, 6)
    heads = Alignment(AlignConfig(network="squeezenet", enlarge=2), model.config)
    loss = heads(output, Tokens.cut(output.values, torch.tensor([2, 6, 4])), images)["align_tokens"]
    (gradient,) = torch.autograd.grad(loss, output.values)
    assert gradient[:, 0, 8:].abs().amin() > 0
    assert gradient[:, 0, :8].abs().sum() + gradient[:, 1:].abs().sum() == 0


def test_heads_learn(aligned: nn.Module, tiny_dove: Dove, images: torch.Tensor) -> None:
    with torch.no_grad():
        output = tiny_dove.generate(images, 4)
    tokens = Tokens.cut(output.values, torch.tensor([4, 4, 4]))
    optimizer = torch.optim.Adam(aligned.heads.parameters(), lr=0.02)
    totals = []
    for _ in range(60):
        total = sum(aligned(output, tokens, images).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.5 * totals[0]


def test_means_leave_out_what_is_cut() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    found = masked_mean(values, torch.tensor([[True, False, False], [True, True, True]]))
    assert found.tolist() == [[0.0, 1.0], [8.0, 9.0]]


def test_without_a_network_there_is_no_loss(tiny_config: DoveConfig) -> None:
    loss = PrefixLossConfig(perceptual=0.0, perceptual_network="none")
    config = PrefixTrainConfig(preset="any", model=replace(tiny_config, eos_head="quality"), loss=loss)
    objective = PrefixObjective(config, Dove(config.model))
    assert objective.alignment is None
    assert {name: part.state_dict() for name, part in objective.kept.items()} == {"heads": {}}


def test_networks_of_a_loss_are_named_once() -> None:
    align = AlignConfig(network="efficientnet-lite0")
    both = PrefixLossConfig(perceptual_network="squeezenet+efficientnet-lite0", align=align)
    assert both.networks == ("squeezenet", "efficientnet-lite0")
    assert PrefixLossConfig(perceptual=0.0, perceptual_network="none", align=align).networks == ("efficientnet-lite0",)
    with pytest.raises(UserError, match=r"unknown network loss\.align\.network=resnet"):
        AlignConfig(network="resnet")


def test_tokens_have_a_weight_of_their_own():
    distances = {
        "align_grid": torch.tensor(1.0),
        "align_hidden": torch.tensor(10.0),
        "align_tokens": torch.tensor(100.0),
    }
    assert weighted_alignment(distances, AlignConfig(network="squeezenet", weight=0.5, tokens=2.0)) == 205.5
    assert weighted_alignment({}, AlignConfig()) == 0
