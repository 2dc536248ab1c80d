"""Tokens on disk: complete, resumable, refused when they don't fit, readable without this package."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dove.cli import main
from dove.commands.decode import file_name
from dove.data.images import open_images
from dove.errors import UserError
from dove.processor import ImageProcessor
from dove.query.tokenizer import QDove
from dove.registry import load_tokenizer
from dove.runtime import save_outputs
from dove.store import TokenStore
from dove.tokenizer import Dove


def keys(folder: Path) -> list[str]:
    return [key for shard in TokenStore.open(folder).shards() for key in shard.keys]


def encode(photos: Path, output: Path, checkpoint: str, *flags: str) -> int:
    common = ["--model", checkpoint, "--shard-size", "3", "--batch-size", "2"]
    return main(["encode", str(photos), "--output", str(output), *common, *flags])


def test_every_image_is_there_once_with_the_models_tokens(photos: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "tokens"
    assert encode(photos, output, checkpoint, "--num-tokens", "5", "--dtype", "fp32") == 0
    assert len(keys(output)) == len(set(keys(output))) == 7
    shard = TokenStore.open(output).read(0)
    assert shard.lengths == [5, 5, 5]
    record = open_images(str(photos))[0]
    expected = Dove.from_pretrained(checkpoint).encode(ImageProcessor(16)(record.image), 5)
    torch.testing.assert_close(shard.tokens(16, 0, 1).values, expected.values, atol=1e-5, rtol=1e-4)


def test_bf16_tokens_point_the_same_way_and_are_not_mixed_with_others(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough, exact = tmp_path / "bf16", tmp_path / "fp32"
    for output, precision in ((rough, "bf16"), (exact, "fp32")):
        assert encode(photos, output, checkpoint, "--num-tokens", "5", "--precision", precision) == 0
    for found, expected in zip(TokenStore.open(rough).shards(), TokenStore.open(exact).shards(), strict=True):
        values = [torch.cat(shard.values).float() for shard in (found, expected)]
        assert torch.cosine_similarity(*values).min() > 0.999
        assert not torch.equal(*values)
    assert encode(photos, rough, checkpoint, "--num-tokens", "5") == 2
    assert "precision was 'bf16', now 'fp32'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "request_", "width"), [("cosines", "auto", 256), ("titok-32-bench", "32", 12)])
def test_tokens_of_every_kind_of_model_come_back_as_its_pictures(
    name: str, request_: str, width: int, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "tokens", tmp_path / "out"
    assert main(["encode", str(photos), "--output", str(store), "--model", name, "--num-tokens", request_]) == 0
    assert TokenStore.open(store).manifest.token_dim == width
    assert main(["decode", str(store), "--output", str(out)]) == 0
    model, record = load_tokenizer(name), open_images(str(photos))[0]
    processor = ImageProcessor(model.image_size)
    expected = processor.to_pil(model.decode(model.encode(processor(record.image), request_)))[0]
    found = Image.open(out / file_name(record.key, set()))
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1  # fp16 in the store
    main(["encode", str(photos), "--output", str(tmp_path / "b"), "--model", name, "--precision", "bf16"])
    assert "--precision bf16 is for DOVE and Q-DOVE" in capsys.readouterr().err


def test_shards_open_without_this_package(photos: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "tokens"
    assert encode(photos, output, checkpoint) == 0
    tables = [pq.read_table(path) for path in sorted(output.glob("*.parquet"))]
    assert [table.num_rows for table in tables] == [3, 3, 1]
    for row in (row for table in tables for row in table.to_pylist()):
        assert len(row["values"]) == row["length"] * 24
    assert json.loads((output / "store.json").read_text())["num_tokens"] == "auto"


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", range(5))
def test_a_killed_run_goes_on_without_losing_or_doubling(
    moment: int, photos: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls, original = tmp_path / "tokens", [], Dove.encode_each

    def dying(self: Dove, *given: object) -> object:
        calls.append(1)
        if len(calls) > moment:
            raise Killed
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Dove, "encode_each", dying)
        with pytest.raises(Killed):
            encode(photos, output, checkpoint)
    assert encode(photos, output, checkpoint) == 0
    assert len(keys(output)) == len(set(keys(output))) == 7


def test_unreadable_images_are_named_every_time(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a" / "broken.png").write_bytes(b"no picture")
    for _ in range(2):  # the second run has nothing left to encode
        assert encode(photos, tmp_path / "tokens", checkpoint) == 2
        assert "broken.png" in capsys.readouterr().err
    assert len(keys(tmp_path / "tokens")) == 7


def test_decode_rebuilds_what_the_model_would(photos: Path, checkpoint: str, tmp_path: Path) -> None:
    encode(photos, tmp_path / "tokens", checkpoint)
    assert main(["decode", str(tmp_path / "tokens"), "--output", str(tmp_path / "images")]) == 0
    written = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*.png"))
    assert written == sorted(path.relative_to(photos) for path in photos.rglob("*.png"))


def rewrite(tokens: Path, column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change a column of the second shard behind the store's back."""
    path = tokens / "tokens-00001.parquet"
    table = pq.read_table(path)
    changed = change(table[column].to_pylist())
    kind = pa.string() if isinstance(changed[0], str) else table[column].type
    position = table.column_names.index(column)
    pq.write_table(table.set_column(position, column, pa.array(changed, kind)), path)


def claim(tokens: Path, sha256: str) -> None:
    """Let the second shard say that another checkpoint made it."""
    path = tokens / "tokens-00001.parquet"
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"dove.store": json.dumps({"checkpoint_sha256": sha256}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tokens: (tokens / "tokens-00001.parquet").unlink(), "unfinished"),
        (lambda tokens: (tokens / "tokens-00001.parquet").write_bytes(b"PAR1"), "damaged"),
        (lambda tokens: (tokens / "store.json").unlink(), "no store.json"),
        (lambda tokens: (tokens / "store.json").write_text("{"), "damaged"),
        (lambda tokens: rewrite(tokens, "length", lambda lengths: [99] * len(lengths)), "has"),
        (lambda tokens: rewrite(tokens, "values", lambda rows: [row[1:] for row in rows]), "numbers for"),
        (lambda tokens: rewrite(tokens, "values", lambda rows: ["x"] * len(rows)), "column values is string"),
        (lambda tokens: claim(tokens, "0" * 64), "was made by checkpoint 000000000000"),
    ],
)
def test_damaged_stores_are_refused(
    spoil: object, message: str, photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(photos, tmp_path / "tokens", checkpoint)
    assert callable(spoil)
    spoil(tmp_path / "tokens")
    capsys.readouterr()
    assert main(["decode", str(tmp_path / "tokens"), "--output", str(tmp_path / "images")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dove: ")
    assert message in error


def test_another_checkpoints_tokens_are_refused(
    photos: Path, checkpoint: str, tmp_path: Path, tiny_dove: Dove, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(photos, tmp_path / "tokens", checkpoint)
    with torch.no_grad():
        tiny_dove.token_decoder.positions.add_(1)
    tiny_dove.save_pretrained(tmp_path / "other")
    arguments = [
        "decode",
        str(tmp_path / "tokens"),
        "--output",
        str(tmp_path / "x"),
        "--model",
        str(tmp_path / "other"),
    ]
    assert main(arguments) == 2
    assert "was made by" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--num-tokens", "4"], ["--dtype", "fp32"]])
def test_other_settings_need_another_folder(
    flags: Sequence[str], photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(photos, tmp_path / "tokens", checkpoint)
    assert encode(photos, tmp_path / "tokens", checkpoint, *flags) == 2
    assert "made otherwise" in capsys.readouterr().err
    assert len(keys(tmp_path / "tokens")) == 7


def test_a_full_disk_loses_nothing(
    photos: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dove import checkpoint as files

    original, written = files._replace_files, []

    def filling(folder: Path, contents: dict[str, bytes]) -> None:
        written.append(1)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        original(folder, contents)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace_files", filling)
        assert encode(photos, tmp_path / "tokens", checkpoint) == 2
    assert "No space left" in capsys.readouterr().err
    assert encode(photos, tmp_path / "tokens", checkpoint) == 0
    assert len(keys(tmp_path / "tokens")) == 7


def test_what_a_kill_left_does_not_stand_in_the_way(photos: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "tokens"
    output.mkdir()
    (output / ".store.json.abc").write_text("{")
    (output / ".tokens-00000.parquet.xyz").write_bytes(b"PAR1")
    assert encode(photos, output, checkpoint) == 0
    assert sorted(path.name for path in output.iterdir() if path.name.startswith(".")) == []
    assert len(keys(output)) == 7


def test_file_names_stay_inside_and_apart() -> None:
    taken: set[str] = set()
    names = [file_name(key, taken) for key in ("../../etc/x.jpg", "/etc/x.png", "etc/x", "etc/x", "..", "C:\\y.png")]
    assert names[:2] == ["etc/x.png", "etc/x.png.png"]
    assert len(set(names)) == len(names)
    assert all(not name.startswith("/") and ".." not in name.split("/") for name in names)


def test_names_that_are_no_text_or_long_go_through_encode_and_decode(checkpoint: str, tmp_path: Path) -> None:
    folder, tokens, output = tmp_path / "photos", tmp_path / "tokens", tmp_path / "images"
    folder.mkdir()
    long = "\u044f" * 125
    for name in (b"bad\xff.jpg", f"{long}.jpg".encode(), b"zz.jpg"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
        Image.new("RGB", (20, 20), (90, 90, 90)).save(path)
    assert main(["encode", str(folder), "--output", str(tokens), "--model", checkpoint, "--num-tokens", "2"]) == 0
    assert keys(tokens) == ["bad\\xff.jpg", "zz.jpg", f"{long}.jpg"]
    assert main(["decode", str(tokens), "--output", str(output)]) == 0
    written = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert written == ["bad_.png", "zz.png", f"{long}.png"]


def test_a_name_that_no_file_system_takes_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*: File name too long; write elsewhere"):
        save_outputs({tmp_path / file_name("x" * 300, set()): b""})


def test_a_picture_given_by_a_name_that_is_no_text(checkpoint: str, tmp_path: Path) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"bad\xff.png"))
    Image.new("RGB", (20, 20)).save(path)
    assert main(["encode", path, "--output", str(tmp_path / "tokens"), "--model", checkpoint, "--num-tokens", "2"]) == 0
    assert json.loads((tmp_path / "tokens" / "store.json").read_text())["source"] == [f"{tmp_path}/bad\\xff.png"]


def test_tokens_of_a_query_are_the_models_and_are_not_mixed_with_others(
    photos: Path, tiny_qdove: QDove, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_qdove.save_pretrained(tmp_path / "asked")
    output, model = tmp_path / "tokens", str(tmp_path / "asked")
    flags = ["--num-tokens", "5", "--dtype", "fp32", "--query", "the red door"]
    assert encode(photos, output, model, *flags) == 0
    store = TokenStore.open(output)
    assert store.manifest.query == "the red door"
    record = open_images(str(photos))[0]
    expected = tiny_qdove.encode(ImageProcessor(16)(record.image), 5, "the red door")
    torch.testing.assert_close(store.read(0).tokens(16, 0, 1).values, expected.values, atol=1e-5, rtol=1e-4)
    assert encode(photos, output, model, *flags[:-1], "the sky") == 2
    assert "query was 'the red door', now 'the sky'" in capsys.readouterr().err
    assert encode(photos, tmp_path / "whole", model, *flags[:-1], "null") == 0
    assert TokenStore.open(tmp_path / "whole").manifest.query is None


def test_a_query_to_a_model_that_takes_none(
    photos: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(photos, tmp_path / "tokens", checkpoint, "--query", "the red door") == 2
    assert "this model takes no queries; leave --query out" in capsys.readouterr().err
