"""The plan of the code: no circle of imports, relative imports within a top-level folder, short modules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("vmp_edge", "compile", "calibration", "runtimes", "apps")
MOST_LINES = 400
FILES = {path: path.relative_to(ROOT).parts for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def module_name(parts):
    """The name by which a file is imported when the package is installed."""
    names = [*parts[:-1], parts[-1].removesuffix(".py")]
    names = names[:-1] if names[-1] == "__init__" else names
    return ".".join(names if names[0] == "vmp_edge" else ["vmp_edge", *names])


MODULES = {module_name(parts): path for path, parts in FILES.items()}


def imports(path, everywhere=False):
    """The modules of this project that a file imports: when it is itself imported, or everywhere in it."""
    tree = ast.parse(path.read_text())
    package = module_name(FILES[path]).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree) if everywhere else top_level(tree):
        if isinstance(node, ast.Import):
            yield from ((node, name.name) for name in node.names)
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            for name in node.names:
                yield node, f"{source}.{name.name}" if f"{source}.{name.name}" in MODULES else source


def top_level(tree):
    """The statements that run at import, and those for type checkers alone; functions' bodies are left out."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from top_level(node)


def test_no_circle_of_imports():
    """Imports for type checkers count, too: a circle of types is as hard to follow as one of code."""
    graph = {
        name: {target for _, target in imports(path) if target in MODULES and target != name}
        for name, path in MODULES.items()
    }
    done = set()

    def visit(name, way):
        assert name not in way, f"a circle of imports: {' -> '.join([*way[way.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*way, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_within_a_top_level_folder_are_relative(folder):
    """So that tools can follow them in a checkout, where only `vmp_edge` lies where its name says."""
    others = {f"vmp_edge.{name}" for name in FOLDERS if name != "vmp_edge"}
    for path, parts in FILES.items():
        if parts[0] != folder or parts == ("compile", "build.py"):
            continue
        for node, target in imports(path, everywhere=True):
            inside = target == f"vmp_edge.{folder}" or target.startswith(f"vmp_edge.{folder}.")
            if folder == "vmp_edge":
                top = ".".join(target.split(".")[:2])
                inside = target.split(".")[0] == "vmp_edge" and top not in others
            absolute = isinstance(node, ast.Import) or node.level == 0
            assert not (inside and absolute), f"{path}:{node.lineno} imports {target} by its full name"
