"""The documentation: every command in it is one that the parser takes, every `make` target exists, its snippets run."""

import functools
import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from dove.cli import COMMANDS, main
from dove.query.tokenizer import QDove
from dove.vlm.model import VisionLanguageModel

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_lines(page: Path) -> list[str]:
    """Lines of indented and of shell blocks, continued ones joined."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return re.findall(r"^    (\S.*)$", text, re.MULTILINE) + [line for block in blocks for line in block.splitlines()]


def command_lines() -> list[tuple[str, str]]:
    return [
        (page.name, line)
        for page in PAGES
        for line in code_lines(page)
        if line.startswith("dove ") and "..." not in line
    ]


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_the_parser_takes_every_command(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(line.split(" > ")[0], comments=True)[1:]
    name = next(name for name in COMMANDS if arguments[: name.count(" ") + 1] == name.split())
    module = import_module(COMMANDS[name].module)

    @functools.wraps(module.run)
    def parsed(options: Any) -> int:
        return 0

    monkeypatch.setattr(module, "run", parsed)
    assert main(arguments) == 0


def test_commands_named_in_passing_exist() -> None:
    first_words = {name.split()[0] for name in COMMANDS}
    for page in PAGES:
        for word in re.findall(r"`dove ([a-z]+)", page.read_text(encoding="utf-8")):
            assert word in first_words, f"{page.name}: dove {word}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^    )make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_every_job_of_the_workflow_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = [job["run"] for job in workflow["jobs"]["check"]["strategy"]["matrix"]["include"]]
    assert {".ci/run", "make docs", "make test-notebooks", "make test-e2e"} <= set(commands)
    for command in commands:
        assert (ROOT / command).is_file() or re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", ["index.md", "ecosystem.md", "queries.md", "scale.md", "speed.md", "vlm.md"])
def test_snippets_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_qdove: QDove, tiny_vlm: VisionLanguageModel
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "drawing.png"):
        Image.effect_noise((90, 60), 60).convert("RGB").save(name)
    if page == "queries.md":  # what its training would give
        tiny_qdove.save_pretrained("runs/qdove/model")
    if page == "vlm.md":
        tiny_vlm.tokenizer.save_pretrained("tiny")
        tiny_vlm.save_pretrained("runs/vlm/model")
    if page == "scale.md":  # the store that it opens
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        assert main(["encode", "photo.jpg", "--output", "tokens"]) == 0
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    for snippet in found:
        exec(compile(snippet, page, "exec"), {})


def test_names_that_notebooks_import_exist() -> None:
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for module, names in re.findall(r"^from (dove[\w.]*) import (.+)$", source, re.MULTILINE):
            for name in names.split(", "):
                assert hasattr(import_module(module), name), f"{notebook.name}: {module}.{name}"
