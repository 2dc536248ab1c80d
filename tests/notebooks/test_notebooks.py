"""The notebooks run from top to bottom, with few steps: `make test-notebooks`."""

import json
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHORT = {
    "first_look": {},
    "train_your_own": {"steps": 2, "pictures": 340},
    "language_model": {"steps": 2, "drawings": 40},
}
"""What takes the place of the numbers in a notebook's first cell."""


def shorten(source: str, values: dict[str, int]) -> str:
    """The cell of parameters with other numbers behind it."""
    return source + "".join(f"\n{name} = {value}" for name, value in values.items())


@pytest.mark.parametrize("name", SHORT)
def test_it_runs(name: str, tmp_path: Path) -> None:
    notebook: Any = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert bool(parameters) == bool(SHORT[name])
    for cell in parameters:
        cell.source = shorten(cell.source, SHORT[name])
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(output.output_type == "stream" for output in printed)


def test_there_is_no_other_and_none_keeps_its_output() -> None:
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert sorted(path.stem for path in found) == sorted(SHORT)
    for path in found:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name
