"""Output that the benchmarks share."""

import json
from pathlib import Path
from typing import Any


def write_report(report: dict[str, Any], file: Path | None) -> None:
    """Print a report as JSON, and write it to a file if one is given."""
    text = json.dumps(report, indent=2)
    print(text)
    if file:
        file.write_text(text + "\n", encoding="utf-8")
