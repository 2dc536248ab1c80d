"""Imports inside the package: only down the layers drawn in CONTRIBUTING.md, and never in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import dove

SOURCES = Path(dove.__file__).parent
DRAWING = Path(__file__).parent.parent / "CONTRIBUTING.md"


def layers() -> dict[str, int]:
    """Heights of modules and packages in the drawing, from its last line (0) up."""
    lines = re.search(
        r"(?m)^## Layers of imports\n(?:(?!    ).*\n)*((?:    .*\n)+)", DRAWING.read_text(encoding="utf-8")
    )
    assert lines
    rows = reversed(lines[1].splitlines())
    return {f"dove.{name}": height for height, row in enumerate(rows) for name in row.split("#")[0].split()}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(node: ast.AST, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that code imports anywhere but for annotations alone."""
    if isinstance(node, ast.ImportFrom):
        assert node.module, "a relative import"
        assert not node.level, "a relative import"
        names = {f"{node.module}.{name.name}" for name in node.names}
        return {name if name in modules else node.module for name in names} & modules.keys()
    if isinstance(node, ast.Import):
        return {name.name for name in node.names} & modules.keys()
    children = node.orelse if isinstance(node, ast.If) and is_for_types(node) else ast.iter_child_nodes(node)
    return set().union(*(imported(child, modules) for child in children))


def imports() -> dict[str, set[str]]:
    modules = {}
    for path in SOURCES.rglob("*.py"):
        parts = path.relative_to(SOURCES.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return {name: imported(ast.parse(path.read_text(encoding="utf-8")), modules) for name, path in modules.items()}


def layer_of(module: str, heights: dict[str, int]) -> str:
    while module not in heights:
        assert "." in module, "a module that the drawing lacks"
        module = module.rpartition(".")[0]
    return module


def test_imports_point_down_the_layers_that_the_drawing_shows():
    heights, graph = layers(), imports()
    graph.pop("dove")
    upward = []
    for module, targets in graph.items():
        own = layer_of(module, heights)
        for target in targets - {"dove"}:
            other = layer_of(target, heights)
            if other != own and heights[other] > heights[own]:
                upward.append(f"{module} imports {target}")
    assert not upward


def test_nothing_takes_the_names_that_the_package_imports_for_its_users():
    for path in SOURCES.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        whole = any(isinstance(node, ast.Import) and "dove" in {name.name for name in node.names} for node in nodes)
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module == "dove":
                assert [name.name for name in node.names] == ["__version__"], path
            elif (
                whole
                and isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "dove"
            ):
                assert node.attr in {"__version__", "__file__"}, path


def test_every_line_of_the_drawing_is_there():
    modules = imports()
    assert layers().keys() <= modules.keys()
    assert {name for name in modules if name.count(".") == 1} <= layers().keys()


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter(imports()).prepare()
