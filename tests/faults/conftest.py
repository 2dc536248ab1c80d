"""What the tests with faults leave behind: figures, for the page on reliability."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps figures of a test in the JSON file that ``DOVE_FAULTS_REPORT`` names, if it names one."""

    def keep(**figures: Any) -> None:
        if name := os.environ.get("DOVE_FAULTS_REPORT"):
            path = Path(name)
            report = json.loads(path.read_text()) if path.exists() else {}
            report[request.node.name] = figures
            path.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")

    return keep
