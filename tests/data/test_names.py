"""Names that are no text, or alike."""

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode
from PIL import Image

from dove.data.dataset import Record
from dove.data.images import open_images
from dove.errors import readable


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def grey(level: int) -> bytes:
    return encode(Image.new("RGB", (8, 8), (level, level, level)))


def found(path: Path) -> dict[str, tuple[int, dict[str, object]]]:
    """Level and metadata of each record by key."""
    records = [record for record in open_images(path) if isinstance(record, Record)]
    return {record.key: (record.image.getpixel((4, 4))[0], record.metadata) for record in records}


def test_a_file_name_that_is_no_utf8_has_a_readable_key(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, level in ((b"bad\xff.png", 10), ("gr\u00fcn.png".encode(), 30)):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(grey(level))
    assert {key: level for key, (level, _) in found(folder).items()} == {"bad\\xff.png": 10, "gr\u00fcn.png": 30}


def test_a_folder_and_a_tar_member_that_are_no_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"photos", b"caf\xe9")))
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(grey(10))
    ((key, (_, metadata)),) = found(tmp_path / "photos").items()
    assert key == "caf\\xe9/a.png"
    assert metadata["name"] == "caf\\xe9"
    shard = write_tar(tmp_path / "s.tar", {"caf\udce9.png": grey(20)})
    assert list(found(shard)) == ["s/caf\\xe9"]


@given(st.binary(min_size=1, max_size=4))
def test_readable_names_are_text(raw: bytes) -> None:
    name = readable(os.fsdecode(raw))
    assert pa.array([name], pa.string()).to_pylist() == [name]
    assert readable(name) == name


def test_every_picture_of_a_sample_is_a_record(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "s.tar", {"22.05.png": grey(5), "22.06.png": grey(6), "a.left.png": grey(7), "b.png": grey(8)}
    )
    assert {key: level for key, (level, _) in found(shard).items()} == {
        "s/22.05": 5,
        "s/22.06": 6,
        "s/a.left": 7,
        "s/b": 8,
    }


def test_two_formats_of_a_sample_have_keys_of_their_own(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"a.png": grey(5), "a.bmp": encode(Image.new("RGB", (8, 8)), "BMP")})
    assert list(found(shard)) == ["s/a", "s/a.bmp"]


def test_metadata_go_to_the_pictures_that_they_name(tmp_path: Path) -> None:
    members = {"22.05.png": grey(5), "22.06.png": grey(6), "22.cls": b"3", "22.06.cls": b"4", "22.05.txt": b"five"}
    records = found(write_tar(tmp_path / "s.tar", members))
    assert records == {"s/22.05": (5, {"label": 3, "txt": "five"}), "s/22.06": (6, {"label": 4})}
