"""One loader for every kind of source: same records, same order, bad ones named."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dove.data import parquet, sources
from dove.data.archives import TarImages
from dove.data.dataset import ConcatImages
from dove.data.images import ImageDataset, Record, Unreadable, open_images, summarise_unreadable
from dove.data.parquet import ParquetImages
from dove.data.sources import FileImages
from dove.errors import UserError

IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_folder(folder: Path, photos: list[bytes]) -> Path:
    """Two class folders, in an order that is not the alphabet's."""
    for number, data in enumerate(photos):
        path = folder / ("cat" if number < 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_parquet(path: Path, photos: list[bytes | None], *, plain: bool = False, rows: int = 2) -> Path:
    """Row groups of ``rows``, a label and a box beside each picture."""
    cells: list[Any] = photos if plain else [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(photos)]
    table = pa.table(
        {
            "image": pa.array(cells, pa.binary() if plain else IMAGE_STRUCT),
            "label": pa.array(range(len(photos)), pa.int16()),
            "bbox": pa.array([[i, 1, 2, 3] for i in range(len(photos))], pa.list_(pa.int16(), 4)),
        }
    )
    pq.write_table(table, path, row_group_size=rows, compression="zstd")
    return path


def write_tar(path: Path, photos: list[bytes], first: int = 0) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, data in enumerate(photos, first):
            members = {"jpg": data, "cls": str(number).encode(), "json": json.dumps({"caption": "x"}).encode()}
            for extension, content in members.items():
                member = tarfile.TarInfo(f"a/{number:04d}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def grey_levels(dataset: ImageDataset) -> list[int]:
    """The level of each picture, which tells the six photos apart."""
    records = list(dataset)
    assert all(isinstance(record, Record) and record.image.mode == "RGB" for record in records)
    return [record.image.getpixel((3, 3))[0] for record in records if isinstance(record, Record)]


EXPECTED = [0, 40, 80, 120, 160, 200]


@pytest.fixture
def every_source(tmp_path: Path, photos: list[bytes]) -> dict[str, Any]:
    folder = write_folder(tmp_path / "folder", photos)
    shards = tmp_path / "shards"
    parquets = tmp_path / "parquets"
    shards.mkdir()
    parquets.mkdir()
    for part in range(2):
        write_tar(shards / f"s-{part:03d}.tar", photos[3 * part : 3 * part + 3], 3 * part)
        write_parquet(parquets / f"p-{part}.parquet", list(photos[3 * part : 3 * part + 3]))
    return {
        "folder": folder,
        "files": sorted(folder.rglob("*.png")),
        "image glob": str(folder / "**" / "*.png"),
        "class glob": str(folder / "*"),
        "parquet": write_parquet(tmp_path / "all.parquet", list(photos)),
        "plain parquet": write_parquet(tmp_path / "plain.parquet", list(photos), plain=True),
        "parquet glob": str(parquets / "*.parquet"),
        "parquet folder": str(parquets),
        "parquet list": [parquets / "p-0.parquet", parquets / "p-1.parquet"],
        "tar": write_tar(tmp_path / "all.tar", photos),
        "tar range": str(shards / "s-{000..001}.tar"),
        "tar folder": shards,
        "mixed list": [folder / "cat", parquets / "p-1.parquet"],
    }


KINDS = (
    "folder;files;image glob;class glob;parquet;plain parquet;parquet glob;parquet folder;parquet list;"
    "tar;tar range;tar folder;mixed list"
)


@pytest.mark.parametrize("kind", KINDS.split(";"))
def test_every_kind_of_source(kind: str, every_source: dict[str, Any]) -> None:
    dataset = open_images(every_source[kind])
    assert len(dataset) == 6
    assert grey_levels(dataset) == EXPECTED
    keys = [record.key for record in dataset]
    assert len(set(keys)) == 6
    assert [record.key for record in open_images(every_source[kind])] == keys
    assert grey_levels(pickle.loads(pickle.dumps(dataset))) == EXPECTED
    assert grey_levels(open_images(every_source[kind], limit=4)) == EXPECTED[:4]
    assert dataset[-1].key == keys[-1]
    with pytest.raises(IndexError):
        dataset[6]


def test_kinds_become_one_dataset_each(every_source: dict[str, Any]) -> None:
    for kind, expected in {
        "files": FileImages,
        "parquet list": ParquetImages,
        "tar range": TarImages,
        "mixed list": ConcatImages,
    }.items():
        assert type(open_images(every_source[kind])) is expected


def test_folder_gives_classes(every_source: dict[str, Any]) -> None:
    records = list(open_images(every_source["folder"]))
    assert [record.key for record in records][2:4] == ["cat/2.png", "dog/3.png"]
    assert [record.metadata["label"] for record in records] == [0, 0, 0, 1, 1, 1]
    assert records[-1].metadata["name"] == "dog"


def test_folder_order_ignores_the_file_system(tmp_path: Path, photos: list[bytes]) -> None:
    for name in ("b/1.png", "a.png", "a/z.png", "a-b/1.png", "A/1.PNG", ".hidden/1.png", "a/._z.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photos[0])
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert [record.key for record in open_images(tmp_path)] == ["A/1.PNG", "a/z.png", "a-b/1.png", "a.png", "b/1.png"]


def test_two_folders_have_keys_of_their_own(tmp_path: Path, photos: list[bytes]) -> None:
    folders = [write_folder(tmp_path / name, photos) for name in ("one", "two")]
    assert len({record.key for record in open_images(folders)}) == 12


def test_parquet_metadata_and_columns(every_source: dict[str, Any]) -> None:
    assert open_images(every_source["parquet"])[3].metadata == {"label": 3, "bbox": [3, 1, 2, 3], "path": "3.png"}
    assert open_images(every_source["plain parquet"], columns=["label"])[3].metadata == {"label": 3}
    assert open_images(every_source["plain parquet"], columns=())[3].metadata == {}
    with pytest.raises(UserError, match="no column 'size'; its columns are image, label, bbox"):
        open_images(every_source["parquet"], columns=["size"])
    with pytest.raises(UserError, match="no column 'picture'"):
        open_images(every_source["parquet"], image_column="picture")


def test_parquet_keeps_no_more_than_its_cache(every_source: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PARQUET_CACHE_BYTES", 1)
    dataset = open_images(every_source["parquet"])
    assert grey_levels(dataset) == EXPECTED
    assert grey_levels(dataset.select([5, 0, 3])) == [200, 0, 120]
    assert len(dataset._cache) == 1


def test_parquet_with_empty_row_groups(tmp_path: Path, photos: list[bytes]) -> None:
    path = tmp_path / "gaps.parquet"
    table = pq.read_table(write_parquet(tmp_path / "a.parquet", list(photos)))
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:0], table[:2], table[:0], table[2:], table[:0]):
            writer.write_table(part)
    assert grey_levels(open_images(path)) == EXPECTED


def test_tar_metadata(every_source: dict[str, Any]) -> None:
    record = open_images(every_source["tar"])[2]
    assert record.key == "all/a/0002"
    assert record.metadata == {"label": 2, "caption": "x"}


def test_bad_records_are_named_and_the_rest_goes_on(mixed_folder: Path) -> None:
    dataset = open_images(mixed_folder, on_error="skip")
    records = list(dataset)
    bad = [record for record in records if isinstance(record, Unreadable)]
    assert [record.key for record in bad] == ["empty.jpg", "huge.png", "text.png", "truncated.png"]
    assert len(records) == 8
    summary = summarise_unreadable(bad, len(dataset))
    assert summary.startswith("4 of 8 images could not be read")
    assert "\n" not in summary
    assert all(str(mixed_folder / record.key) in summary for record in bad)
    with pytest.raises(UserError, match=r"empty\.jpg"):
        list(open_images(mixed_folder))


def test_bad_rows(tmp_path: Path, photos: list[bytes]) -> None:
    path = write_parquet(tmp_path / "a.parquet", [photos[0], None, b"", photos[3][:30]])
    records = list(open_images(path, on_error="skip"))
    assert [type(record) for record in records] == [Record, Unreadable, Unreadable, Unreadable]
    assert records[1].reason.startswith(f"{path} row 1 (1.png): ")


def test_damaged_row_group(tmp_path: Path, photos: list[bytes]) -> None:
    path = write_parquet(tmp_path / "a.parquet", list(photos))
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    records = list(open_images(path, on_error="skip"))
    assert [type(record) for record in records] == [Unreadable] * 2 + [Record] * 4
    assert "damaged parquet file" in records[0].reason


def test_truncated_tar(every_source: dict[str, Any]) -> None:
    path = every_source["tar"]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"all\.tar: not a readable, uncompressed tar file"):
        open_images(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "none", "no such file or folder"),
        (lambda root: root / "none.png", "no such file"),
        (lambda root: "none.png", "no such file"),
        (lambda root: "photos/none.png", "no such file"),
        (lambda root: str(root / "*.png"), "no file matches"),
        (lambda root: root, "holds no images"),
        (lambda root: [], "no image source"),
        (lambda root: str(root / "s-{0..1}.tar"), "s-0.tar: no such file"),
    ],
)
def test_nothing_there(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_images(make(tmp_path))


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "PHOTOS.TGZ", "photos.7z"])
def test_archives_are_to_be_unpacked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UserError, match=f"{name}: an archive; unpack it first"):
        open_images(tmp_path / name)
    with pytest.raises(UserError, match="holds no images.*unpack its 1 archives first"):
        open_images(tmp_path)


def test_not_what_the_ending_says(tmp_path: Path, photos: list[bytes]) -> None:
    for name, message in {
        "a.parquet": "not a readable parquet file",
        "a.tar": "not a readable, uncompressed tar",
    }.items():
        (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(UserError, match=message):
            open_images(tmp_path / name)
    (tmp_path / "photo").write_bytes(photos[0])
    assert grey_levels(open_images(tmp_path / "photo")) == [0]


def test_folder_of_several_kinds(tmp_path: Path, photos: list[bytes]) -> None:
    write_folder(tmp_path, photos)
    write_parquet(tmp_path / "a.parquet", list(photos))
    with pytest.raises(UserError, match="several kinds"):
        open_images(tmp_path)


def test_limit(tmp_path: Path, photos: list[bytes]) -> None:
    folder = write_folder(tmp_path, photos)
    with pytest.raises(UserError, match="limit=0"):
        open_images(folder, limit=0)
    assert len(open_images(folder, limit=100)) == 6


def test_hub_dataset(photos: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*names: str, split: str) -> datasets.Dataset:
        asked.append((*names, split))
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        rows = [{"bytes": data, "path": None} for data in photos]
        return datasets.Dataset.from_dict({"image": rows, "label": list(range(6))}, features=features)

    monkeypatch.setattr(sources, "_check_reachable", lambda repository: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = open_images("someone/photos")
    assert grey_levels(dataset) == EXPECTED
    assert dataset[2].metadata == {"label": 2}
    open_images("someone/photos/small:test[:10%]", columns=[])
    assert asked == [("someone/photos", "train"), ("someone/photos", "small", "test[:10%]")]
    with pytest.raises(UserError, match="no column 'size'"):
        open_images("someone/photos", columns=["size"])


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="someone/photos: no such file or folder here, and the hub cannot be reached"):
        open_images("someone/photos")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match="could not be opened"):
        open_images("someone/photos")
