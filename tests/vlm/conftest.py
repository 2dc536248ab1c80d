"""A language model of a few thousand parameters, the small tokenizer, and drawings with questions."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dove.tokenizer import Dove
from dove.training.config import OptimConfig, RunConfig
from dove.vlm.config import LanguageModelConfig, ViewsConfig, VLMTrainConfig
from dove.vlm.model import VisionLanguageModel

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def drawing(color: str, seed: int) -> Image.Image:
    """A 16 px square of noise-free colour on near white."""
    pixels = np.full((16, 16, 3), 240, dtype=np.uint8)
    row, column = np.random.default_rng(seed).integers(0, 8, 2)
    pixels[row : row + 8, column : column + 8] = COLORS[color]
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tokenizer_folder(tiny_dove: Dove, tmp_path: Path) -> str:
    tiny_dove.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def vlm(tiny_vlm: VisionLanguageModel) -> VisionLanguageModel:
    """Untrained, with larger weights than usual, so that answers differ visibly."""
    for parameter in tiny_vlm.parameters():
        parameter.data.mul_(4 if parameter.ndim > 1 else 1)
    return tiny_vlm


@pytest.fixture
def questions_file(tmp_path: Path) -> str:
    """24 drawings, two questions each."""
    colors = [list(COLORS)[number % 2] for number in range(24)]
    rows = {
        "image": [{"bytes": png(drawing(color, number)), "path": None} for number, color in enumerate(colors)],
        "questions": [["what color is it?", "is it red?"]] * 24,
        "answers": [[color, "yes" if color == "red" else "no"] for color in colors],
    }
    pq.write_table(pa.table(rows), tmp_path / "drawings.parquet")
    return str(tmp_path / "drawings.parquet")


@pytest.fixture
def training(
    questions_file: str, tokenizer_folder: str, tiny_language_model: LanguageModelConfig, tmp_path: Path
) -> VLMTrainConfig:
    """Six steps in fp32."""
    return VLMTrainConfig(
        preset="vlm-tiny",
        data=questions_file,
        output=str(tmp_path / "run"),
        tokenizer=tokenizer_folder,
        num_tokens=("auto", "5", "16"),
        views=ViewsConfig(count=2, mirror=True),
        scratch=tiny_language_model,
        questions_per_image=1,
        optim=OptimConfig(lr=1e-3, warmup_steps=2, ema_decay=0.5),
        connector_lr=2e-3,
        run=RunConfig(
            steps=6,
            batch_size=4,
            precision="fp32",
            threads=1,
            holdout=4,
            log_every=1,
            sample_every=6,
            checkpoint_every=2,
        ),
    )
