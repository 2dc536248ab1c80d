"""Sources that mean harm: names that point elsewhere, sizes that fill the memory, columns that are not what they seem."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode, gradient, png_header
from PIL import Image

from dove.data import parquet, reading, sources
from dove.data.dataset import Record, Unreadable
from dove.data.images import open_images
from dove.errors import UserError


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_writes_nothing_wherever_its_names_point(tmp_path: Path, photo: Image.Image) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../slipped.png", "/slipped.png", f"{tmp_path}/slipped.png", "a/../../slipped2.png"]
    dataset = open_images(shard(inside / "s.tar", {name: encode(photo) for name in names}))
    assert all(isinstance(record, Record) for record in dataset)
    assert [path.name for path in tmp_path.rglob("*.png")] == []
    assert not Path("/slipped.png").exists()


def test_links_and_devices_in_a_tar_are_no_pictures(tmp_path: Path, photo: Image.Image) -> None:
    secret = tmp_path / "secret.png"
    photo.save(secret)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.CHRTYPE, "dev.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    with pytest.raises(UserError, match="no image files"):
        open_images(tmp_path / "s.tar")


def test_a_tar_member_that_is_too_large_is_not_read(
    tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(tmp_path / "s.tar", {"a.png": encode(photo), "b.png": bytes(5000)})
    monkeypatch.setattr(reading, "MAX_BYTES", 4000)
    first, second = open_images(path, on_error="skip")
    assert isinstance(first, Record)
    assert isinstance(second, Unreadable)
    assert "5000 bytes are more than the 4000" in second.reason


def test_a_shard_that_vanishes_is_named(tmp_path: Path, photo: Image.Image) -> None:
    path = shard(tmp_path / "s.tar", {"a.png": encode(photo)})
    dataset = open_images(path)
    path.unlink()
    with pytest.raises(UserError, match=r"s\.tar sample a: cannot be read"):
        dataset[0]


@pytest.mark.parametrize("source", ["path", "bytes", "file"])
def test_encoded_pictures_have_a_largest_size(
    source: str, tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photo) + bytes(3000)
    (tmp_path / "a.png").write_bytes(data)
    given = {"path": tmp_path / "a.png", "bytes": data, "file": io.BytesIO(data)}[source]
    assert reading.read_image(given).size == photo.size
    monkeypatch.setattr(reading, "MAX_BYTES", 3000)
    with pytest.raises(UserError, match="more than the 3000"):
        reading.read_image(io.BytesIO(data) if source == "file" else given)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_bomb_among_others_is_left_out(kind: str, tmp_path: Path, photo: Image.Image) -> None:
    pictures = [encode(photo), png_header(30_000, 30_000), encode(photo)]
    path = tmp_path / f"s.{kind}"
    if kind == "tar":
        shard(path, {f"{number}.png": data for number, data in enumerate(pictures)})
    else:
        pq.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in pictures]}), path)
    found = list(open_images(path, on_error="skip"))
    assert [isinstance(item, Record) for item in found] == [True, False, True]


@pytest.mark.parametrize(
    "column",
    [pa.array([7]), pa.array([[1, 2]]), pa.array([{"path": 7}]), pa.array([{"bytes": "secret.png", "path": ""}])],
    ids=str,
)
def test_a_column_that_holds_no_images_is_refused(column: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": column}), tmp_path / "s.parquet")
    with pytest.raises(UserError, match=r"'image' holds .*no encoded images"):
        open_images(tmp_path / "s.parquet")


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("shape", ["text", "struct", "list"])
def test_paths_do_not_lead_out_of_the_folder_of_the_table(
    shape: str, absolute: bool, tmp_path: Path, photo: Image.Image
) -> None:
    """A data set must not choose which files of this machine are read."""
    photo.save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    path = str(tmp_path / "secret.png") if absolute else "x/../../secret.png"
    cell = {"text": path, "struct": {"bytes": None, "path": path}, "list": [path]}[shape]
    pq.write_table(pa.table({"image": [cell]}), tmp_path / "data" / "s.parquet")
    with pytest.raises(UserError, match=r"secret\.png.*leads out of .*data; put the images beside"):
        open_images(tmp_path / "data" / "s.parquet")[0]


def test_a_row_group_that_fills_the_memory_is_not_read(
    tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"bytes": encode(photo) + bytes(10**6), "path": None}] * 3  # a few hundred bytes, compressed
    pq.write_table(pa.table({"image": rows}), tmp_path / "s.parquet", compression="zstd")
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 10**6)
    found = open_images(tmp_path / "s.parquet", on_error="skip")[0]
    assert isinstance(found, Unreadable)
    assert "row group 0" in found.reason


def test_a_damaged_row_group_is_read_once(tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"image": [{"bytes": encode(photo), "path": None}] * 50}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(60) + content[64:])  # the head of the first page
    dataset, reads, original = open_images(path, on_error="skip"), [], parquet._open_parquet

    def counting(name: str) -> pq.ParquetFile:
        reads.append(name)
        return original(name)

    monkeypatch.setattr(parquet, "_open_parquet", counting)
    assert all(isinstance(item, Unreadable) and "damaged" in item.reason for item in dataset)
    assert len(reads) == 1


def test_hub_rows_cannot_name_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gradient()).save(tmp_path / "secret.png")
    inside = tmp_path / "cache" / "a.png"
    inside.parent.mkdir()
    Image.fromarray(gradient()).save(inside)
    monkeypatch.setattr(sources, "_hub_folders", lambda: [inside.parent])
    link = inside.parent / "link.png"
    link.symlink_to(tmp_path / "secret.png")
    paths = [inside, tmp_path / "secret.png", inside.parent / ".." / "secret.png", link]
    rows = [{"image": {"bytes": None, "path": str(path)}} for path in paths]
    dataset = sources.TableImages(rows, "owner/name", "image")
    dataset.on_error = "skip"
    assert [isinstance(record, Record) for record in dataset] == [True, False, False, False]
