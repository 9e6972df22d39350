"""The lines and scalars of the language of manifests: what `language` puts together to lists and mappings."""

from __future__ import annotations

import re
from typing import NoReturn

from ..errors import BundleError

MOST_VALUES = 100_000  # scalars, lists and mappings: 32768 labels and the logits of their check fit
LONGEST_TEXT = 65_536  # characters
DEEPEST = 32  # lists and mappings inside each other

_FORBIDDEN = re.compile(
    "[^\n\\x20-\\x7e\\xa0-\\u2027\\u202a-\\ud7ff\\ue000-\\ufefe\\uff00-\\ufffd\\U00010000-\\U0010ffff]"
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 40  # characters; Python writes at most 24
_PLAIN = {"null": None, "~": None, "true": True, "false": False}
_FLOW_STOP = re.compile(r"[,\[\]{}:#]")
FLOW = ",[]{}"
_NEVER_FIRST = {
    "&": "an anchor",
    "*": "an alias",
    "!": "a tag",
    "|": "a block text, which needs quotes instead,",
    ">": "a block text, which needs quotes instead,",
    "%": "a directive",
    "?": "a text that begins with '?' and needs quotes,",
    ":": "a text that begins with ':' and needs quotes,",
    **{char: f"a misplaced '{char}'" for char in ",]}#@`"},
}
_ESCAPES = {
    **{char: char for char in ' "/\\'},
    **dict(zip("0abtnvfreN_LP", "\0\a\b\t\n\v\f\r\x1b\x85\xa0\u2028\u2029", strict=True)),
}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


def scalar(text: str) -> object:
    """Return what a scalar without quotes is: a number, a boolean, None or, as anything else, a text.

    Raises:
        ValueError: It is a number that is too large, or has too many digits.
    """
    if text in _PLAIN:
        return _PLAIN[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError
    if match[1] is None and match[2] is None:
        whole = int(text)
        if not -(1 << 63) <= whole < 1 << 63:
            raise ValueError
        return whole
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError
    return number


class Scanner:
    """Reads a document line by line. `_row` and `_column` are the place where the next value begins."""

    def __init__(self, text: str) -> None:
        self._row = self._column = self._values = 0
        if found := _FORBIDDEN.search(text):
            self._row = text.count("\n", 0, found.start())
            self._fail(f"the character U+{ord(found[0]):04X}, which is not allowed here,")
        self._lines = text.split("\n")

    def _fail(self, what: str) -> NoReturn:
        raise BundleError(f"is not valid YAML ({what} in line {self._row + 1})")

    def _count(self, depth: int = 0) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            self._fail(f"too many values, more than {MOST_VALUES} up to the one")
        if depth > DEEPEST:
            self._fail(f"more than {DEEPEST} lists and mappings inside each other")

    # Lines

    def _skip_blank_lines(self) -> None:
        """Go to the next line that is neither blank nor a comment."""
        while self._row < len(self._lines):
            content = self._lines[self._row].lstrip(" ")
            if content and content[0] != "#":
                return
            self._row += 1

    def _next_line(self) -> int:
        """Go to the next line with content. Return its indentation, or -1 at the end."""
        self._skip_blank_lines()
        if self._row >= len(self._lines):
            return -1
        self._check_one_document()
        return self._indent()

    def _indent(self) -> int:
        line = self._lines[self._row]
        return len(line) - len(line.lstrip(" "))

    def _check_one_document(self) -> None:
        if re.match(r"(?:---|\.\.\.)(?: |$)", self._lines[self._row]):
            self._fail("the mark of a second document")

    def _check_rest(self) -> None:
        """Check that nothing but a comment follows a value in its line, and go to the next line."""
        rest = self._lines[self._row][self._column :]
        content = rest.lstrip(" ")
        if content and (content[0] != "#" or rest[0] != " "):
            self._fail("something after the end of a value")
        self._row += 1

    def _begins_item(self, column: int) -> bool:
        return self._lines[self._row][column : column + 2] in ("-", "- ")

    # Scalars

    def _plain_lines(self, column: int, parent: int) -> str:
        """Read a text without quotes, which goes on in lines that are indented more than `parent`."""
        pieces, commented = [], False
        while not commented:
            line = self._lines[self._row]
            comment = line.find(" #", column)
            commented = comment >= 0
            piece = (line[column:comment] if commented else line[column:]).rstrip(" ")
            if ": " in piece or piece[-1:] == ":":
                self._fail("a text with ':', which needs quotes,")
            pieces.append(piece)
            self._check_length(pieces)
            self._row += 1
            blank = self._row
            while self._row < len(self._lines) and not self._lines[self._row].strip(" "):
                self._row += 1
            if self._row >= len(self._lines):
                break
            column = self._indent()
            if column <= parent or self._lines[self._row][column] == "#":
                break
            self._check_one_document()
            if self._row > blank and not commented:
                self._fail("a text without quotes that goes on after a blank line")
        return " ".join(pieces)

    def _resolved(self, text: str) -> object:
        self._check_length(text)
        try:
            return scalar(text)
        except ValueError:
            self._fail("a number that is too large or too long")

    def _check_length(self, text: str | list[str]) -> None:
        if len(text) > LONGEST_TEXT:
            self._fail_by_length()

    def _fail_by_length(self) -> NoReturn:
        self._fail(f"a text of more than {LONGEST_TEXT} characters")

    def _check_first(self, column: int, stops: str) -> None:
        """Check that a text without quotes may begin here. It ends before the characters `stops`."""
        line = self._lines[self._row]
        after = line[column + 1 : column + 2]
        if line[column] == "?" and after in ("", " "):
            self._fail("a key behind '?', but only plain names are keys,")
        if what := _NEVER_FIRST.get(line[column]):
            self._fail(what)
        if line[column] == "-" and (after in ("", " ") or after in stops):
            self._fail("a misplaced '-'")

    def _quoted(self) -> str:
        """Read a text in quotes. Afterwards the place is behind it."""
        quote = self._lines[self._row][self._column]
        special = re.compile("'" if quote == "'" else r'["\\]')
        self._column += 1
        pieces: list[str] = []
        for _ in range(LONGEST_TEXT + 1):  # each time at least one character, an escape or the end of a line
            line = self._lines[self._row]
            found = special.search(line, self._column)
            if found is None:
                pieces.append(line[self._column :].rstrip(" "))
                pieces.append("\n" * self._continue_quoted() or " ")
                continue
            pieces.append(line[self._column : found.start()])
            self._column = found.end()
            if found[0] == "\\":
                pieces.append(self._escape() if self._column < len(line) else "\n" * self._continue_quoted())
            elif quote == "'" and line[self._column : self._column + 1] == "'":
                pieces.append("'")
                self._column += 1
            else:
                text = "".join(pieces)
                self._check_length(text)
                return text
        self._fail_by_length()

    def _continue_quoted(self) -> int:
        """Go to the first character of the next line that is not blank. Return how many blank lines are before it."""
        begin = self._row
        self._row += 1
        while self._row < len(self._lines) and not self._lines[self._row].strip(" "):
            self._row += 1
        if self._row >= len(self._lines):
            self._row = begin
            self._fail("a quote that is never closed, begun or continued")
        self._check_one_document()
        self._column = self._indent()
        return self._row - begin - 1

    def _escape(self) -> str:
        line = self._lines[self._row]
        char = line[self._column]
        self._column += 1
        if char in _ESCAPES:
            return _ESCAPES[char]
        count = _HEX_DIGITS.get(char, 0)
        digits = line[self._column : self._column + count]
        self._column += count
        if count == 0 or re.fullmatch(f"[0-9a-fA-F]{{{count}}}", digits) is None or int(digits, 16) > 0x10FFFF:
            self._fail("an escape that does not exist")
        return chr(int(digits, 16))

    # In flow style

    def _flow_next(self) -> str:
        """Go to the next character that is neither blank nor in a comment, and return it."""
        while True:
            line = self._lines[self._row]
            while line[self._column : self._column + 1] == " ":
                self._column += 1
            rest = line[self._column : self._column + 1]
            if rest and (rest != "#" or (self._column > 0 and line[self._column - 1] != " ")):
                return rest
            if self._row + 1 >= len(self._lines):
                self._fail("a bracket that is never closed")
            self._row += 1
            self._column = 0
            self._check_one_document()

    def _flow_plain(self) -> str:
        """Read a text without quotes, which may go on in the next lines."""
        self._check_first(self._column, FLOW)
        pieces = [self._flow_piece()]
        while self._column >= len(self._lines[self._row]) and self._continues_flow_plain():
            pieces.append(self._flow_piece())
        return " ".join(pieces)

    def _flow_piece(self) -> str:
        """Read what a text without quotes has in this line."""
        begin, line = self._column, self._lines[self._row]
        end = begin
        while found := _FLOW_STOP.search(line, end):
            end = found.start()
            is_colon_inside = found[0] == ":" and not self._ends_flow_plain(line, end + 1)
            if not is_colon_inside and not (found[0] == "#" and line[end - 1] != " "):
                break
            end += 1
        else:
            end = len(line)
        self._column = end
        return line[begin:end].rstrip(" ")

    def _continues_flow_plain(self) -> bool:
        """Go to the next line if a text without quotes goes on there. Return whether it does."""
        row = self._row + 1
        while row < len(self._lines) and not self._lines[row].strip(" "):
            row += 1
        if row >= len(self._lines):
            return False
        line = self._lines[row]
        column = len(line) - len(line.lstrip(" "))
        if line[column] in FLOW + "#" or (line[column] == ":" and self._ends_flow_plain(line, column + 1)):
            return False
        if row > self._row + 1:
            self._fail("a text without quotes that goes on after a blank line")
        self._row, self._column = row, column
        self._check_one_document()
        return True

    def _ends_flow_plain(self, line: str, column: int) -> bool:
        return line[column : column + 1] in ("", " ", *FLOW)
