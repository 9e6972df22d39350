"""The documentation says what is there: links, files, functions, commands, imports, and the table of targets."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "benchmarks" / "results").glob("*.md")),
    ]
    if path.is_file()
]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SOURCES = ("*.py", "*.c", "*.cpp", "*.cu", "*.h", "*.hpp", "*.cuh")
FILE = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)+\.(?:py|c|cc|cpp|cu|cuh|h|hpp|yaml))(?::(?P<name>[\w.]+))?")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


# The table of targets


def test_readme_has_the_targets_of_the_yaml_files() -> None:
    spec = importlib.util.spec_from_file_location("targets_table", ROOT / "docs" / "targets_table.py")
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.inserted(text, table.render()) == text, (
        "the README's table of targets is not that of compile/targets/*.yaml: run python docs/targets_table.py"
    )


def test_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    missing = [page for page in pages if page != "README.md" and f"]({page}" not in index]
    assert not missing, f"docs/README.md does not link {', '.join(missing)}"


# The plan of the code


def listed_folders() -> list[str]:
    rows = section(ARCHITECTURE.read_text(encoding="utf-8"), "Folders")
    return re.findall(r"^\| `([\w/.-]+)/` \|", rows, re.MULTILINE)


def has_sources(folder: Path) -> bool:
    return any(True for pattern in SOURCES for _ in folder.rglob(pattern))


def code_folders() -> set[str]:
    """Folders of code of the first two levels, without tests and what a build makes."""
    skipped = {"build", "dist", "tests", "__pycache__"}
    tops = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in skipped and path.name[0] not in "._"]
    both = [*tops, *(path for top in tops for path in top.iterdir() if path.is_dir() and path.name not in skipped)]
    return {relative(path) for path in both if not path.is_symlink() and has_sources(path)}


def test_folders_of_the_plan_exist() -> None:
    folders = listed_folders()
    assert folders, "docs/architecture.md has no table of folders"
    missing = [folder for folder in folders if not (ROOT / folder).is_dir()]
    assert not missing, f"docs/architecture.md lists folders that do not exist: {', '.join(missing)}"


def test_every_folder_of_code_is_in_the_plan() -> None:
    missing = sorted(code_folders() - set(listed_folders()))
    assert not missing, f"docs/architecture.md does not list {', '.join(missing)}"


def python_names(path: Path) -> set[str]:
    """Names that a module defines or imports, and ``Class.member``."""

    def targets(node: ast.stmt) -> list[str]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return [node.name]
        if isinstance(node, ast.Assign):
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            return [node.target.id]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            return [alias.asname or alias.name for alias in node.names]
        return []

    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names.update(targets(node))
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{member}" for statement in node.body for member in targets(statement))
    return names


def is_there(path: Path, name: str) -> bool:
    if path.suffix == ".py":
        return name in python_names(path)
    return re.search(rf"\b{re.escape(name)}\b", path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", [path for path in PAGES if "results" not in path.parts], ids=relative)
def test_files_and_functions_named_in_a_page_exist(page: Path) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()}
    wrong = []
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        match = FILE.fullmatch(span)
        if match is None or match["path"].partition("/")[0] not in tops - {"build"}:
            continue
        if re.search(r"[A-Z]{4}", match["path"]):  # a placeholder: NAME.py
            continue
        path = ROOT / match["path"]
        if not path.is_file() or (match["name"] and not is_there(path, match["name"])):
            wrong.append(span)
    assert not wrong, f"{relative(page)} names what does not exist: {', '.join(wrong)}"


# Links


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.*?) *$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        if count:
            found[f"{slug}-{count}"] = 1
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(link)
    assert not broken, f"{relative(page)} has links that lead nowhere: {', '.join(broken)}"


# Examples


def is_importable(module: str, name: str | None = None) -> bool:
    """Whether a name of the package can be imported, or only because of another package cannot."""
    try:
        value = importlib.import_module(module)
    except ImportError as error:
        return not (error.name or "vmp_edge").startswith("vmp_edge")
    if name is None or hasattr(value, name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


def names_used(tree: ast.AST) -> list[tuple[str, str | None]]:
    """What an example takes from the package: modules and their names."""
    used: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            used += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            used += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vmp_edge":
            used.append(("vmp_edge", node.attr))
    return [(module, name) for module, name in used if module.partition(".")[0] == "vmp_edge"]


@pytest.mark.parametrize("page", [path for path in PAGES if code_blocks(path, "python")], ids=relative)
def test_python_examples_use_names_that_exist(page: Path) -> None:
    for block in code_blocks(page, "python"):
        for module, name in names_used(ast.parse(block)):
            assert is_importable(module, name), f"{relative(page)} uses {module}.{name or ''}, which does not exist"


def parser() -> argparse.ArgumentParser:
    from vmp_edge import cli

    made = argparse.ArgumentParser(prog="vmp-edge", exit_on_error=False)
    subparsers = made.add_subparsers(required=True)
    for name in cli.COMMANDS:
        importlib.import_module(f"vmp_edge.cli.{name}").add_parser(subparsers)
    return made


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `vmp-edge` and `compile/build.py` command in the code blocks of a page."""
    found = []
    for block in code_blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for index, word in enumerate(words):
                if word == "vmp-edge":
                    found.append(words[index + 1 :])
                elif word == "compile/build.py":
                    found.append(["build", *words[index + 1 :]])
    return found


@pytest.mark.parametrize("page", [path for path in PAGES if commands(path)], ids=relative)
def test_commands_of_a_page_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page):
        try:
            parser().parse_args(words)
        except (SystemExit, argparse.ArgumentError) as error:
            pytest.fail(f"{relative(page)}: vmp-edge {shlex.join(words)}: {error} {capsys.readouterr().err}")
