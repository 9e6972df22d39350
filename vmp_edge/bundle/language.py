"""The language of manifests: a small, bounded part of YAML, read here as `runtimes/embedded/src/yaml_tree.cpp` does.

docs/bundle.md describes it. Both readers accept the same texts and give the same values, whatever version of a YAML
library is installed. They go through the text once, so that no text takes long or needs much memory.
"""

from __future__ import annotations

import re

from ..errors import BundleError
from .scanning import Scanner


def parse(content: str | bytes) -> object:
    """Read a document.

    Args:
        content: The text, or its bytes in UTF-8.

    Returns:
        The document as dicts, lists, texts, numbers, booleans and None. A key that is no text stays what it is.

    Raises:
        BundleError: The document is not in the language. The message does not name the file.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise BundleError("is not valid YAML (it is not text in UTF-8)") from error
    return _Reader(text.replace("\r\n", "\n")).document()


class _Reader(Scanner):
    """Reads a document as lists, mappings and scalars."""

    def document(self) -> object:
        self._skip_blank_lines()
        if self._row < len(self._lines) and re.fullmatch(r"---(?: +(?:#.*)?)?", self._lines[self._row]):
            self._row += 1
        indent = self._next_line()
        if indent < 0:
            return None
        root = self._block(indent, -1, 1)
        if self._next_line() >= 0:
            self._fail("an indentation that fits nothing above it")
        return root

    # Block style

    def _block(self, indent: int, parent: int, depth: int) -> object:
        """Read the value that begins in this line at `indent`; what contains it has the indentation `parent`."""
        if self._begins_item(indent):
            return self._list(indent, depth)
        if self._key(indent) is not None:
            return self._mapping(indent, depth)
        return self._inline(indent, parent, depth)

    def _list(self, indent: int, depth: int) -> list[object]:
        self._count(depth)
        items: list[object] = []
        while self._next_line() == indent and self._begins_item(indent):
            line = self._lines[self._row]
            content = line[indent + 1 :].lstrip(" ")
            column = len(line) - len(content)
            if not content or content[0] == "#":
                items.append(self._value_below(indent, False, depth))
            elif self._begins_item(column) or self._key(column) is not None:
                self._lines[self._row] = " " * column + content  # a list or mapping that begins in the item's line
                items.append(self._block(column, indent, depth + 1))
            else:
                items.append(self._inline(column, indent, depth + 1))
        return items

    def _mapping(self, indent: int, depth: int) -> dict[object, object]:
        self._count(depth)
        entries: dict[object, object] = {}
        seen: set[tuple[type, object]] = set()
        while self._next_line() == indent:
            key = self._key(indent)
            if key is None:
                self._fail("no 'key: value', where one is needed,")
            name, after = key
            self._note_key(seen, name)
            line = self._lines[self._row]
            content = line[after:].lstrip(" ")
            if not content or content[0] == "#":
                entries[name] = self._value_below(indent, True, depth)
            else:
                entries[name] = self._inline(len(line) - len(content), indent, depth + 1)
        return entries

    def _note_key(self, seen: set[tuple[type, object]], name: object) -> None:
        if (type(name), name) in seen:
            self._fail(f"the key {str(name)!a:.60} for the second time")
        seen.add((type(name), name))

    def _value_below(self, indent: int, in_mapping: bool, depth: int) -> object:
        """Read the value of a key or an item, which begins in the next lines."""
        self._row += 1
        below = self._next_line()
        if below > indent:
            return self._block(below, indent, depth + 1)
        if in_mapping and below == indent and self._begins_item(indent):
            return self._list(indent, depth + 1)
        self._count()
        return None

    def _key(self, column: int) -> tuple[object, int] | None:
        """Return the key that begins here, and the column after its colon; None if there is no key."""
        line = self._lines[self._row]
        if line[column] in "[{":
            return None
        if line[column] in "'\"":
            row = self._row
            self._column = column
            name: object = self._quoted()
            multiline, self._row = self._row != row, row
            colon = self._column
            while not multiline and line[colon : colon + 1] == " ":
                colon += 1
            return (name, colon + 1) if not multiline and line[colon : colon + 2] in (":", ": ") else None
        colon = line.find(": ", column)
        if colon < 0 and line.endswith(":"):
            colon = len(line) - 1
        comment = line.find(" #", column)
        if colon < 0 or 0 <= comment < colon:
            return None
        self._check_first(column, "")
        return self._plain_key(line[column:colon].rstrip(" ")), colon + 1

    def _plain_key(self, text: str) -> object:
        if text == "<<":
            self._fail("a merge")
        return self._resolved(text)

    def _inline(self, column: int, parent: int, depth: int) -> object:
        """Read a scalar or a flow collection that begins in this line, and go to the line after it."""
        self._column = column
        first = self._lines[self._row][column]
        if first in "[{'\"":
            value = self._flow(depth)
            self._check_rest()
            return value
        self._check_first(column, "")
        self._count()
        return self._resolved(self._plain_lines(column, parent))

    # Flow style

    def _flow(self, depth: int) -> object:
        """Read the value that begins at the place. Afterwards the place is behind it."""
        first = self._lines[self._row][self._column]
        if first == "[":
            return self._flow_list(depth)
        if first == "{":
            return self._flow_mapping(depth)
        self._count()
        return self._quoted() if first in "'\"" else self._resolved(self._flow_plain())

    def _flow_list(self, depth: int) -> list[object]:
        self._count(depth)
        items: list[object] = []
        self._column += 1
        while self._flow_next() != "]":
            items.append(self._flow(depth + 1))
            self._flow_separator("]")
        self._column += 1
        return items

    def _flow_mapping(self, depth: int) -> dict[object, object]:
        self._count(depth)
        entries: dict[object, object] = {}
        seen: set[tuple[type, object]] = set()
        self._column += 1
        while (first := self._flow_next()) != "}":
            if first in "[{":
                self._fail("a key that is no text")
            is_quoted, row = first in "'\"", self._row
            name: object = self._quoted() if is_quoted else self._plain_key(self._flow_plain())
            if self._row > row:
                self._fail("a key of more than one line, which ends")
            self._note_key(seen, name)
            line = self._lines[self._row]
            while line[self._column : self._column + 1] == " ":
                self._column += 1
            is_colon = line[self._column : self._column + 1] == ":"
            if not is_colon or not (is_quoted or self._ends_flow_plain(line, self._column + 1)):
                self._fail("a key without ': '")
            self._column += 1
            if self._flow_next() in ",}":
                self._count()
                entries[name] = None
            else:
                entries[name] = self._flow(depth + 1)
            self._flow_separator("}")
        self._column += 1
        return entries

    def _flow_separator(self, end: str) -> None:
        found = self._flow_next()
        if found == ",":
            self._column += 1
        elif found != end:
            self._fail(f"no ',' or '{end}', where one is needed,")
