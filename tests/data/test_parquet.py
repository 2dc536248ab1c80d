"""Cells of parquet files in the forms that they come in."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode
from PIL import Image

from dove.data.dataset import Record, Unreadable
from dove.data.images import open_images

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def grey(level: int) -> bytes:
    return encode(Image.new("RGB", (8, 8), (level, level, level)))


def write(folder: Path, cells: pa.Array, rows: int = 2) -> Path:
    table = pa.table({"image": cells, "row": list(range(len(cells)))})
    pq.write_table(table, folder / "s.parquet", row_group_size=rows)
    return folder / "s.parquet"


def found(path: Path) -> dict[str, tuple[int, int]]:
    """Level and row of each record by key."""
    records = [record for record in open_images(path) if isinstance(record, Record)]
    return {record.key: (record.image.getpixel((4, 4))[0], record.metadata["row"]) for record in records}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one below a folder of its own."""
    (tmp_path / "more").mkdir()
    for place, level in (("a.png", 10), ("b.png", 20), ("more/c.png", 30)):
        (tmp_path / place).write_bytes(grey(level))
    return tmp_path


@pytest.mark.parametrize("form", ["text", "struct with path alone", "struct without bytes"])
def test_paths_start_beside_the_file(form: str, folder: Path) -> None:
    paths = ["a.png", "./b.png", "more/c.png"]
    cells = {
        "text": pa.array(paths),
        "struct with path alone": pa.array([{"path": path} for path in paths]),
        "struct without bytes": pa.array([{"bytes": None, "path": path} for path in paths], IMAGE),
    }[form]
    expected = {f"s/{row:06d}": (level, row) for row, level in enumerate((10, 20, 30))}
    assert found(write(folder, cells)) == expected


def test_bytes_go_before_the_path_beside_them(folder: Path) -> None:
    assert found(write(folder, pa.array([{"bytes": grey(99), "path": "a.png"}], IMAGE))) == {"s/000000": (99, 0)}


@pytest.mark.parametrize("form", ["structs", "bytes", "paths"])
def test_every_image_of_a_list_is_a_record(form: str, folder: Path) -> None:
    levels = [[10], [20, 30], [10, 20, 30]]
    names = {10: "a.png", 20: "b.png", 30: "more/c.png"}
    make = {"structs": lambda level: {"bytes": grey(level), "path": None}, "bytes": grey, "paths": names.get}[form]
    cells = pa.array([[make(level) for level in row] for row in levels])
    expected = {
        f"s/{row:06d}-{place}": (level, row) for row, some in enumerate(levels) for place, level in enumerate(some)
    }
    assert found(write(folder, cells)) == expected


def test_what_holds_no_picture_is_named(folder: Path) -> None:
    def reasons(cells: pa.Array) -> list[str]:
        records = open_images(write(folder, cells), on_error="skip")
        return [record.reason for record in records if isinstance(record, Unreadable)]

    (reason,) = reasons(pa.array(["a.png", "none.png"]))
    assert reason.endswith("s.parquet row 1 (none.png): no such file; check the path")
    (reason,) = reasons(pa.array([{"bytes": None, "path": None}], IMAGE))
    assert reason.endswith("s.parquet row 0: holds no picture; leave it out")
    first, second = reasons(pa.array([[{"bytes": grey(1), "path": None}], [], None], pa.list_(IMAGE)))
    assert first.endswith("s.parquet row 1 image 0: holds no picture; leave it out")
    assert second.endswith("s.parquet row 2 image 0: holds no picture; leave it out")
