"""Write the README's table of targets from ``compile/targets/*.yaml``: ``python docs/targets_table.py``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- targets: written by python docs/targets_table.py -->"
END = "<!-- end of targets -->"
INT8 = ("int8", "int8-dynamic", "int8-weight-only")


def render(root: Path = ROOT) -> str:
    """Return the table in Markdown, one row for each target, sorted by name."""
    lines = ["| target | device | engine | precisions | verified |", "|---|---|---|---|---|"]
    pages = _pages(root)
    for path in sorted((root / "compile" / "targets").glob("*.yaml"), key=lambda path: path.stem):
        entry: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = f"`{path.stem}`"
        if path.stem in pages:
            name = f"[{name}]({pages[path.stem]})"
        engines = [entry["engine"], *(engine for engine in entry["engines"] if engine != entry["engine"])]
        cells = [name, entry["description"], ", ".join(engines), _precisions(entry["precisions"])]
        lines.append(f"| {' | '.join([*cells, _verified(entry['verified'])])} |")
    return "\n".join(lines)


def inserted(text: str, table: str) -> str:
    """Return a page's text with the table between the two marks.

    Raises:
        ValueError: The page does not have both marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _pages(root: Path) -> dict[str, str]:
    """Return the page of each target, by the names in the pages' headings."""
    pages = {}
    for path in sorted((root / "docs" / "targets").glob("*.md")):
        heading = path.read_text(encoding="utf-8").partition("\n")[0]
        for name in re.findall(r"`([\w-]+)`", heading):
            pages[name] = path.relative_to(root).as_posix()
    return pages


def _precisions(precisions: list[str]) -> str:
    """Join the precisions; all three kinds of int8 become one entry, to keep the table narrow."""
    if set(INT8) <= set(precisions):
        kept = [name for name in precisions if name not in INT8[1:]]
        return ", ".join("int8 (3 kinds)" if name == "int8" else name for name in kept)
    return ", ".join(precisions)


def _verified(verified: dict[str, str]) -> str:
    """Join what was verified on each machine, without the details in brackets, which `vmp-edge targets` prints."""
    return "; ".join(f"{machine}: {re.sub(r' *[(][^()]*[)]', '', what)}" for machine, what in verified.items())


def main() -> None:
    """Write the table into the README."""
    readme = ROOT / "README.md"
    readme.write_text(inserted(readme.read_text(encoding="utf-8"), render()), encoding="utf-8")


if __name__ == "__main__":
    main()
