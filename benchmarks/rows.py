"""Keep tables that grow row by row: results in a YAML file, and a Markdown table made from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vmp_edge.files import whole

Rows = dict[str, dict[str, Any]]


def put(path: Path, key: str, row: dict[str, Any], table: Callable[[Rows], str]) -> None:
    """Put a row into a table, or replace the row with the same key.

    Args:
        path: The YAML file; the Markdown file lies beside it. The YAML is read again for each row, because a benchmark
            in another environment may have written rows in the meantime.
        key: The row's key.
        row: The row's values.
        table: Makes the Markdown from all rows.
    """
    results: Rows = yaml.safe_load(path.read_text()) if path.exists() else {}
    results[key] = row
    for target, text in ((path, yaml.safe_dump(results, width=120)), (path.with_suffix(".md"), table(results))):
        with whole(target) as place:
            place.write_text(text)
