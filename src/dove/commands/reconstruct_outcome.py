"""Results of ``dove reconstruct``: rows of its picture and objects of its JSON file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dove.data.dataset import Record, Unreadable
    from dove.lengths import LengthPolicy
    from dove.photos.picture import Cell
    from dove.photos.tile_picture import TiledRow


@dataclass
class Outcome:
    """Results for the images of a source."""

    results: list[dict[str, Any]] = field(default_factory=list)  # Objects of the JSON file
    rows: "list[list[Cell]]" = field(default_factory=list)  # First ``MOST_ROWS`` rows of the picture
    tiled_rows: "list[TiledRow]" = field(default_factory=list)  # Rows of the picture for photos in tiles
    unreadable: "list[Unreadable]" = field(default_factory=list)

    @property
    def shown(self) -> int:
        """Number of images in the picture."""
        return len(self.rows) + len(self.tiled_rows)


def describe(
    record: "Record",
    policies: Sequence["LengthPolicy"],
    lengths: Sequence[int],
    qualities: Sequence[float],
    query: str | None,
) -> dict[str, Any]:
    """Make the JSON object of one image. Its path is that of the file, or in other sources the record's key."""
    file = record.metadata.get("path") or ""
    return {
        "path": file if file.endswith(record.key) else record.key,
        "query": query,
        "rows": [
            {"num_tokens": int(text) if (text := str(policy)).isdigit() else text, "length": length, "psnr": quality}
            for policy, length, quality in zip(policies, lengths, qualities, strict=True)
        ],
    }
