"""No module of the package imports itself through others, not inside a function either, and no word names two classes.

A circle works only while its modules happen to be imported in one order, and none of them can be read alone.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import offline_robust

ROOT = Path(offline_robust.__file__).parent


def trees(root: Path) -> dict[str, ast.Module]:
    """Every module below a package's folder by its dotted name; a package stands for its `__init__`."""
    paths = {path.relative_to(root.parent).with_suffix("").parts: path for path in root.rglob("*.py")}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): ast.parse(path.read_text(encoding="utf-8"))
        for parts, path in paths.items()
    }


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, those inside functions too; what stands under ``if TYPE_CHECKING`` does not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def imports(name: str, modules: Mapping[str, ast.Module], packages: set[str]) -> set[str]:
    """The modules of the package that one of them imports.

    ``from package import name`` counts for the module that ``name`` is, or else for the package's `__init__`. That a
    module's own packages are imported before it does not count: no module can avoid it.
    """
    targets: set[str] = set()
    for node in statements(modules[name]):
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                above = parts[: len(parts) - node.level + (name in packages)]
                base = ".".join([*above, *([base] if base else [])])
            inside = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            targets.update(dotted if dotted in modules else base for dotted in inside.values())
    return targets & set(modules)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components (Tarjan) of more than one module, and modules that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            start = stack.index(module)
            component = sorted(stack[start:])
            del stack[start:]
            if len(component) > 1 or module in graph[module]:
                components.append(component)

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return components


def import_graph(root: Path) -> dict[str, set[str]]:
    modules = trees(root)
    packages = {".".join(path.parent.relative_to(root.parent).parts) for path in root.rglob("__init__.py")}
    return {name: imports(name, modules, packages) for name in modules}


def test_no_module_imports_itself_through_others() -> None:
    assert circles(import_graph(ROOT)) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("from toy.b import x", "import toy.a", [["toy.a", "toy.b"]]),
        ("from toy import b", "def f():\n    from . import a", [["toy.a", "toy.b"]]),
        ("from .b import x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import y", []),
        ("import toy.b", "import numpy", []),
        ("import toy.a", "", [["toy.a"]]),
    ],
)
def test_circles_are_seen(tmp_path: Path, first: str, second: str, expected: list[list[str]]) -> None:
    root = tmp_path / "toy"
    root.mkdir()
    for name, text in {"__init__": "", "a": first, "b": second}.items():
        (root / f"{name}.py").write_text(text)
    assert circles(import_graph(root)) == expected


def test_a_word_names_one_class() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees(ROOT).items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
