"""The exported encoder gives the model's tokens, for every number of images; and threads don't disturb each other."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dove.cli import main
from dove.config import DoveConfig
from dove.errors import UserError
from dove.integrations.onnx import export_encoder
from dove.query.tokenizer import QDove
from dove.tokenizer import Dove

TOLERANCE = 1e-3


def some_images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count)) * 2 - 1


@pytest.fixture(params=[("none", "binary"), ("none", "quality"), ("cosines", "quality")], ids="-".join)
def model(request: pytest.FixtureRequest, tiny_config: DoveConfig) -> Dove:
    """Models with and without a prior and with two EOS heads, whose sequences have many lengths."""
    prior, head = request.param
    torch.manual_seed(0)
    found = Dove(
        replace(
            tiny_config,
            prior=prior,
            prior_numbers=8 * (prior != "none"),
            eos_head=head,
            quality_target=20.0,
            token_dim=24,
        )
    ).eval()
    with torch.no_grad():
        torch.nn.init.normal_(found.generator.eos_head.projection.weight)
        found.generator.eos_head.projection.bias.zero_()
    return found


def check(model: Dove, images: torch.Tensor, found: tuple[torch.Tensor, ...]) -> None:
    values, lengths, margin = found
    expected = model.encode(images, model.max_tokens)
    torch.testing.assert_close(values, expected.values, atol=TOLERANCE, rtol=0)
    assert lengths.tolist() == model.encode(images, "auto").lengths.tolist()
    assert margin.shape == (len(images), model.max_tokens)


@pytest.mark.slow
def test_torch_export_with_any_batch(model: Dove, tmp_path: Path) -> None:
    export_encoder(model, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 2, 5):
        with torch.no_grad():
            check(model, some_images(count), program(some_images(count)))


@pytest.mark.slow
def test_onnx_with_any_batch(model: Dove, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_encoder(model, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["values", "lengths", "margin"]
    for count in (1, 2, 5):
        found = session.run(None, {"images": some_images(count).numpy()})
        check(model, some_images(count), tuple(map(torch.from_numpy, found)))


def test_the_command(tiny_dove: Dove, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_dove.save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--output", str(tmp_path / "out" / "e.pt2")]) == 0
    assert "values (batch, 16, 24)" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["e.pt2"]
    assert main(["export", str(tmp_path / "model"), "--output", str(tmp_path / "e.bin")]) == 2
    assert "neither .onnx nor .pt2" in capsys.readouterr().err


def test_models_with_queries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes more than images"):
        export_encoder(QDove.__new__(QDove), tmp_path / "e.onnx")


def test_four_threads_get_what_one_gets(tiny_dove: Dove) -> None:
    batches = [some_images(count % 3 + 1) for count in range(12)]
    expected = [tiny_dove.encode(batch, "auto") for batch in batches]
    decoded = [tiny_dove.decode(tokens) for tokens in expected]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda batch: tiny_dove.encode(batch, "auto"), batches))
            images = list(pool.map(tiny_dove.decode, found))
            for old, new in zip(expected, found, strict=True):
                assert torch.equal(old.lengths, new.lengths)
                torch.testing.assert_close(old.values, new.values)
            for old_image, new_image in zip(decoded, images, strict=True):
                torch.testing.assert_close(old_image, new_image)
