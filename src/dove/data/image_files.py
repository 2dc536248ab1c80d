"""Look-up of the image files that annotations name."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dove.data.reading import SUFFIXES
from dove.errors import UserError


def locate_images(folder: str | Path, image_ids: Iterable[str], source: str | Path) -> dict[str, Path]:
    """Find the files of images below ``folder``, by image id; images that are missing are left out.

    An id is a path relative to the folder, the end of such a path, or a file name with or without its suffix. A path whose
    folders do not exist is looked up by its last part, unless two ids share that.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; pass the one with the images of {source}")
    names: dict[str, list[Path]] = defaultdict(list)
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            names[path.name].append(path)
            stems[path.stem].append(path)
    unlike = dict.fromkeys(image_ids)
    shared = Counter(_as_path(image_id).name for image_id in unlike)
    found: dict[str, Path] = {}
    for image_id in unlike:
        wanted = _as_path(image_id)
        named = names.get(wanted.name) or stems.get(wanted.name) or []
        fitting = [path for path in named if _ends_with(path.relative_to(folder), wanted)]
        if folder / wanted in fitting:
            fitting = [folder / wanted]
        elif not fitting and shared[wanted.name] == 1:
            fitting = named
        if chosen := _only(fitting, image_id, folder, source):
            found[image_id] = chosen
    return found


def _as_path(image_id: str) -> PurePosixPath:
    return PurePosixPath(image_id.replace("\\", "/"))


def _ends_with(path: Path, wanted: PurePosixPath) -> bool:
    """Tell whether the folders of ``wanted`` are the last ones of ``path``; file names are compared elsewhere."""
    folders = wanted.parent.parts
    return not folders or path.parent.parts[-len(folders) :] == folders


def _only(paths: list[Path], image_id: str, folder: Path, source: str | Path) -> Path | None:
    for other in paths[1:]:
        if not filecmp.cmp(paths[0], other, shallow=False):
            one, two = (path.relative_to(folder) for path in (paths[0], other))
            raise UserError(
                f"{source}: image_id {image_id!r} is the name of {one} and of {two}, which differ; "
                "convert the folders one by one with --images, or write the folder into the id"
            )
    return paths[0] if paths else None
