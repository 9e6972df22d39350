"""Tables that grow row by row: a YAML file of what was found, and the Markdown that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vmp_edge.files import whole

Rows = dict[str, dict[str, Any]]


def put(path: Path, key: str, row: dict[str, Any], table: Callable[[Rows], str]) -> None:
    """Put a row into a table.

    Args:
        path: of the YAML; the Markdown lies beside it. It is read again for each row, as another environment may have
            written its own in the meantime.
        key: the row's.
        row: what was found.
        table: makes the Markdown of all rows.
    """
    found: Rows = yaml.safe_load(path.read_text()) if path.exists() else {}
    found[key] = row
    for target, text in ((path, yaml.safe_dump(found, width=120)), (path.with_suffix(".md"), table(found))):
        with whole(target) as place:
            place.write_text(text)
