"""Every baseline trains by its recipe, loads again, and learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.baselines.alit import ALIT
from dove.baselines.config import ALITConfig, MaskgitVQGANConfig, TiTokConfig, TransformerConfig
from dove.baselines.titok import make_titok
from dove.errors import UserError
from dove.protocol import Tokenizer
from dove.registry import load_tokenizer
from dove.training.baseline_config import (
    ALITCodesTrainConfig,
    ALITPixelsTrainConfig,
    MaskgitVQGANTrainConfig,
    QuantizedLossConfig,
    TiTokCodesTrainConfig,
    TiTokPixelsTrainConfig,
    TiTokTrainConfig,
)
from dove.training.baseline_objectives import (
    ALITCodesObjective,
    ALITPixelsObjective,
    QuantizedObjective,
    TiTokCodesObjective,
)
from dove.training.config import OptimConfig, ReconstructionLossConfig, RunConfig
from dove.training.initialisation import load_teacher
from dove.training.objectives import Step
from dove.training.setup import run_training
from dove.training.trainer import make_accelerator

VQGAN = MaskgitVQGANConfig(
    image_size=16,
    hidden_channels=8,
    channel_mult=(1, 1),
    num_res_blocks=1,
    latent_channels=8,
    codebook_size=16,
    norm_groups=4,
)
TRANSFORMER = TransformerConfig(width=16, num_layers=1, num_heads=2)
TITOK = TiTokConfig(transformer=TRANSFORMER, num_tokens=4, image_size=16, patch_size=4, codebook_size=16, head="pixels")
TWO_STAGE = TiTokConfig(
    transformer=TRANSFORMER,
    num_tokens=4,
    image_size=16,
    patch_size=2,
    codebook_size=16,
    vqgan=replace(VQGAN, channel_mult=(1, 1)),
)
ALIT_MODEL = ALITConfig(
    transformer=TRANSFORMER, tokens_per_rollout=2, num_rollouts=3, patch_size=2, codebook_size=16, vqgan=VQGAN
)
NO_NETWORK = {"perceptual": 0.0, "perceptual_network": "none", "gan": 0.0}
SETTINGS = {
    "optim": OptimConfig(lr=1e-3, warmup_steps=1, ema_decay=0.5),
    "run": RunConfig(
        steps=4, batch_size=4, precision="fp32", threads=1, holdout=4, sample_every=2, checkpoint_every=2, log_every=1
    ),
}


@pytest.fixture(scope="module")
def vqgan_folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("vqgan")
    return run_training(
        MaskgitVQGANTrainConfig(
            preset="alit-vqgan-bench",
            model=VQGAN,
            data=str(photos),
            output=str(output),
            loss=QuantizedLossConfig(**NO_NETWORK),
            **SETTINGS,
        )
    )


def check_round_trip(folder: Path, counts: tuple[int, ...]) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert tokenizer.token_counts == counts
    for count in counts:
        tokens = tokenizer.encode(images, count)
        assert tokens.lengths.tolist() == [count, count]
        assert tokenizer.decode(tokens).shape == images.shape
    return tokenizer


def test_the_vqgan_trains_and_loads(vqgan_folder: Path) -> None:
    check_round_trip(vqgan_folder, (64,))


def test_one_stage_titok_trains_and_loads(photos: Path, tmp_path: Path) -> None:
    config = TiTokTrainConfig(
        preset="titok-8-bench",
        model=TITOK,
        data=str(photos),
        output=str(tmp_path),
        loss=QuantizedLossConfig(**NO_NETWORK),
        **SETTINGS,
    )
    check_round_trip(run_training(config), (4,))


def test_two_stage_titok_trains_stage_by_stage(photos: Path, vqgan_folder: Path, tmp_path: Path) -> None:
    common = {"preset": "titok-s128-codes", "model": TWO_STAGE, "data": str(photos), **SETTINGS}
    codes = TiTokCodesTrainConfig(output=str(tmp_path / "1"), vqgan_checkpoint=str(vqgan_folder), **common)
    first = run_training(codes)
    pixels = TiTokPixelsTrainConfig(
        output=str(tmp_path / "2"), stage_one=str(first), loss=ReconstructionLossConfig(**NO_NETWORK), **common
    )
    before, after = check_round_trip(first, (4,)), check_round_trip(run_training(pixels), (4,))
    assert changed(before, after) == {"decoder", "pixel_decoder"}


def test_alit_trains_stage_by_stage(photos: Path, vqgan_folder: Path, tmp_path: Path) -> None:
    common = {"preset": "alit-codes-bench", "model": ALIT_MODEL, "data": str(photos), **SETTINGS}
    codes = ALITCodesTrainConfig(output=str(tmp_path / "1"), vqgan_checkpoint=str(vqgan_folder), **common)
    first = run_training(codes)
    vqgan, alit = load_tokenizer(vqgan_folder), check_round_trip(first, (2, 4, 6))
    assert all(
        torch.equal(a, b) for a, b in zip(vqgan.vqgan.parameters(), alit.base_tokenizer.parameters(), strict=True)
    )
    pixels = ALITPixelsTrainConfig(
        output=str(tmp_path / "2"), stage_one=str(first), loss=QuantizedLossConfig(**NO_NETWORK), **common
    )
    again = check_round_trip(run_training(pixels), (2, 4, 6))
    assert changed(alit, again) >= {"encoder", "decoder", "base_tokenizer"}
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            alit.base_tokenizer.encoder.parameters(), again.base_tokenizer.encoder.parameters(), strict=True
        )
    )


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    pairs = zip(before.named_parameters(), after.named_parameters(), strict=True)
    return {name.split(".")[0] for (name, old), (_, new) in pairs if not torch.equal(old, new)}


def test_a_stage_without_the_one_before_it_says_what_it_needs(photos: Path, tmp_path: Path, vqgan_folder: Path) -> None:
    common = {"model": ALIT_MODEL, "data": str(photos), "output": str(tmp_path), **SETTINGS}
    with pytest.raises(UserError, match="--vqgan-checkpoint"):
        run_training(ALITCodesTrainConfig(preset="alit-codes-bench", **common))
    with pytest.raises(UserError, match="--stage-one"):
        run_training(ALITPixelsTrainConfig(preset="alit-pixels-bench", **common))
    with pytest.raises(UserError, match="other sizes"):
        load_teacher(str(vqgan_folder), replace(VQGAN, codebook_size=32))


def learn(objective: torch.nn.Module, images: torch.Tensor, steps: int, lr: float = 3e-3) -> tuple[float, float]:
    """The loss before and after some steps on one batch."""
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(steps):
        loss = objective(images, Step(step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


@pytest.fixture
def pictures() -> torch.Tensor:
    noise = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=16, mode="bicubic").clamp(-1, 1)


def test_titok_learns(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = TiTokTrainConfig(preset="titok-8-bench", model=TITOK, loss=QuantizedLossConfig(**NO_NETWORK), **SETTINGS)
    first, last = learn(QuantizedObjective(config, make_titok(TITOK)).train(), pictures, 40)
    assert last < 0.5 * first


def test_codes_are_learned(pictures: torch.Tensor, vqgan_folder: Path) -> None:
    torch.manual_seed(0)
    config = TiTokCodesTrainConfig(
        preset="titok-s128-codes", model=TWO_STAGE, vqgan_checkpoint=str(vqgan_folder), **SETTINGS
    )
    objective = TiTokCodesObjective(config, make_titok(TWO_STAGE))
    first, last = learn(objective.train(), pictures, 80)
    assert last < 0.8 * first


def test_alit_rebuilds_a_random_roll_out_that_depends_on_the_step_alone(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = ALITPixelsTrainConfig(
        preset="alit-pixels-bench", model=ALIT_MODEL, loss=QuantizedLossConfig(**NO_NETWORK), **SETTINGS
    )
    objective = ALITPixelsObjective(config, ALIT(ALIT_MODEL).eval())
    by_step = [objective(pictures, Step(step)).reconstruction for step in range(6)]
    assert torch.equal(by_step[2], objective(pictures, Step(2)).reconstruction)
    assert any(not torch.equal(by_step[0], other) for other in by_step[1:])


def test_alit_learns_pixels_through_its_tokens(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = ALITPixelsTrainConfig(
        preset="alit-pixels-bench", model=ALIT_MODEL, loss=QuantizedLossConfig(**NO_NETWORK), **SETTINGS
    )
    objective = ALITPixelsObjective(config, ALIT(ALIT_MODEL))
    before = {name: tensor.clone() for name, tensor in objective.model.state_dict().items()}
    first, last = learn(objective.train(), pictures, 40)
    assert last < 0.5 * first
    kept = {name for name, tensor in objective.model.state_dict().items() if torch.equal(tensor, before[name])}
    assert {name.rsplit(".", 1)[0] for name in kept} >= {"base_tokenizer.quantize.embedding"}
    assert all(
        name.startswith(("base_tokenizer.encoder.", "base_tokenizer.quantize.", "encoder_mask")) for name in kept
    )


def test_what_few_roll_outs_leave_unused_is_told(pictures: torch.Tensor, vqgan_folder: Path) -> None:
    torch.manual_seed(0)
    model = ALIT(ALIT_MODEL)
    model.base_tokenizer = load_teacher(str(vqgan_folder), VQGAN)
    codes = ALITCodesTrainConfig(preset="alit-codes-bench", model=ALIT_MODEL, roll_outs="drawn", **SETTINGS)
    pixels = ALITPixelsTrainConfig(
        preset="alit-pixels-bench", model=ALIT_MODEL, loss=QuantizedLossConfig(**NO_NETWORK), **SETTINGS
    )
    titok = TiTokTrainConfig(preset="titok-8-bench", model=TITOK, loss=QuantizedLossConfig(**NO_NETWORK), **SETTINGS)
    for objective in (
        ALITCodesObjective(codes, model),
        ALITPixelsObjective(pixels, ALIT(ALIT_MODEL)),
        QuantizedObjective(titok, make_titok(TITOK)),
    ):
        without = set()
        for step in range(6):
            objective.zero_grad()
            objective.train()(pictures, Step(step)).loss.backward()
            without.add(sum(parameter.grad is None for parameter in objective.trained()))
        # In some steps all have a part, so that none is trained for nothing.
        assert min(without) == 0
        assert (max(without) > 0) == objective.some_unused
        accelerator = make_accelerator(titok, some_unused=objective.some_unused)
        assert accelerator.ddp_handler.find_unused_parameters == objective.some_unused


def test_the_last_roll_out_is_that_of_all_roll_outs_without_halting(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = ALIT(replace(ALIT_MODEL, halting_threshold=None)).eval()
    for count, roll_out in enumerate(model.roll_outs(pictures), 1):
        torch.testing.assert_close(model.last_roll_out(pictures, count).logits, roll_out.logits)


def test_the_codes_loss_of_alit_is_the_published_one(pictures: torch.Tensor, vqgan_folder: Path) -> None:
    torch.manual_seed(0)
    model = ALIT(replace(ALIT_MODEL, halting_threshold=None))
    model.base_tokenizer = load_teacher(str(vqgan_folder), VQGAN)
    config = ALITCodesTrainConfig(preset="alit-codes-bench", model=ALIT_MODEL, **SETTINGS)
    result = ALITCodesObjective(config, model).eval()(pictures, Step(0))
    expected = torch.zeros(())
    for weight, roll_out in zip((2.5, 2.0, 1.5), model.roll_outs(pictures), strict=True):
        logarithms = roll_out.logits.log_softmax(-1)
        likelihood = logarithms.gather(2, roll_out.codes[..., None]).mean()
        entries = model.base_tokenizer.quantize.embedding.weight
        mean_code = torch.einsum("bnv,vc->bnc", logarithms.exp(), entries)
        error = (mean_code - entries[roll_out.codes]).square().mean()
        expected = expected - weight * (0.9 * likelihood + 0.1 * logarithms.mean()) + error + roll_out.loss
    torch.testing.assert_close(result.loss, expected / 3)


def counted(objective: ALITCodesObjective, images: torch.Tensor, steps: int) -> list[object]:
    """The numbers of roll-outs that the steps ask for."""
    counts: list[object] = []
    roll_outs = objective.model.roll_outs

    def recording(images: torch.Tensor, count: int | None) -> object:
        counts.append(count)
        return roll_outs(images, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective.model, "roll_outs", recording)
        assert all(torch.isfinite(objective(images, Step(step)).loss) for step in range(steps))
    return counts


def test_alit_learns_codes_from_all_roll_outs_or_from_some(pictures: torch.Tensor, vqgan_folder: Path) -> None:
    torch.manual_seed(0)
    model = ALIT(ALIT_MODEL)
    model.base_tokenizer = load_teacher(str(vqgan_folder), VQGAN)
    config = ALITCodesTrainConfig(preset="alit-codes-bench", model=ALIT_MODEL, **SETTINGS)
    assert counted(ALITCodesObjective(config, model).eval(), pictures, 4) == [None] * 4
    drawn = counted(ALITCodesObjective(replace(config, roll_outs="drawn"), model).eval(), pictures, 8)
    assert set(drawn) == {1, 2, 3}
