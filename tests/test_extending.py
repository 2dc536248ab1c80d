"""The rows of CONTRIBUTING's table, each tried by adding one from outside of the package."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from dove import lengths
from dove.cli import COMMANDS, Command, main
from dove.data.dataset import ImageDataset, RawRecord, Record
from dove.data.loader import ImageLoader
from dove.evaluation.common import Images, Subject
from dove.evaluation.reconstruction import evaluate_reconstruction
from dove.lengths import LengthPolicy, parse_length_policy
from dove.models.eos import EosScores
from dove.processor import ImageProcessor
from dove.protocol import Tokenizer
from dove.tokenizer import Dove
from dove.tokens import Tokens


@dataclass(frozen=True)
class Share(LengthPolicy):
    """A share of the capacity."""

    percent: int
    capacity: int
    syntax: ClassVar[str] = "NUMBER%"

    @classmethod
    def parse(cls, text: str, max_tokens: int) -> "Share | None":
        return cls(int(text[:-1]), max_tokens) if text.endswith("%") else None

    def lengths(self, eos: EosScores, trial: lengths.Trial | None = None) -> Int[Tensor, " B"]:
        return torch.full((len(eos.margin),), max(1, self.capacity * self.percent // 100), device=eos.margin.device)

    def __str__(self) -> str:
        return f"{self.percent}%"


def test_a_length_policy(tiny_dove: Dove, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "POLICIES", (*lengths.POLICIES, Share))
    assert tiny_dove.encode(images, "25%").lengths.tolist() == [4, 4, 4]
    assert str(parse_length_policy("25%", 16)) == "25%"


class MeanColour:
    """A tokenizer of one token: the mean colour."""

    image_size, max_tokens, token_counts = 16, 1, (1,)

    def encode(self, images: Tensor, num_tokens: int | str | LengthPolicy = "auto") -> Tokens:
        return Tokens(images.mean((2, 3))[:, None], torch.ones(len(images), dtype=torch.long))

    def decode(self, tokens: Tokens, num_tokens: int | None = None) -> Tensor:
        return tokens.values[:, 0, :, None, None].expand(-1, 3, 16, 16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (18, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


def test_a_tokenizer_behind_the_evaluations(photos: Path) -> None:
    tokenizer = MeanColour()
    assert isinstance(tokenizer, Tokenizer)
    subject = Subject("mean", tokenizer, torch.device("cpu"), "none")
    rows, _ = evaluate_reconstruction(subject, Images(str(photos)), ["1"], [], batch_size=4)
    assert rows[0]["mean_length"] == 1
    assert 5 < rows[0]["psnr"] < 20


def test_a_data_set_behind_the_loader() -> None:
    class Stripes(ImageDataset):
        """Pictures that are made when they are asked for."""

        def __len__(self) -> int:
            return 5

        def raw(self, index: int) -> RawRecord:
            import io

            buffer = io.BytesIO()
            Image.new("RGB", (20, 20), (40 * index, 0, 0)).save(buffer, "PNG")
            return RawRecord(f"{index}", f"stripe {index}", buffer.getvalue(), {"label": index})

    source = Stripes()
    record = source[3]
    assert isinstance(record, Record)
    assert record.metadata == {"label": 3}
    batches = list(ImageLoader(source, ImageProcessor(16), batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_a_loss_behind_an_objective(tiny_dove: Dove, images: Tensor) -> None:
    def edges(images: Float[Tensor, "B 3 H W"], rebuilt: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
        """Absolute difference of horizontal differences, one value for each image."""
        return (images.diff(dim=3) - rebuilt.diff(dim=3)).abs().flatten(1).mean(1)

    tokens = tiny_dove.generate(images, 4).values
    cut = Tokens.cut(tokens, torch.full((3,), 4), tiny_dove.max_tokens)
    losses = edges(images, tiny_dove.reconstruct_from(cut))
    assert losses.shape == (3,)
    losses.mean().backward()
    assert all(
        any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
        for part in (tiny_dove.vqgan, tiny_dove.generator, tiny_dove.token_decoder)
    )


def test_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True, kw_only=True)\nclass Options:\n"
        "    name: str = 'world'\n\n\ndef run(options: Options) -> None:\n    print('hello', options.name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "greet", Command("greet", "say hello"))
    assert main(["greet", "--name", "dove"]) == 0
    assert capsys.readouterr().out == "hello dove\n"
