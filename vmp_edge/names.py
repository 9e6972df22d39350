"""What labels and names may be: what is printed, sent and compared as it stands must hold nothing invisible.

`runtimes/embedded/src/names.cpp` has the same rules, so that Python and C accept the same bundles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

LONGEST_NAME = 256  # characters
MOST_LABELS = 32_768

# Control characters, marks and overrides of the writing direction, ends of lines and paragraphs, invisible operators,
# the byte order mark, annotation marks, halves of surrogate pairs, and code points that are no characters.
_FORBIDDEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb"
    "\\ufffe\\uffff]"
)
BLANKS = " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u3000"


def forbidden(text: str) -> str | None:
    """Return what makes a text unfit for a manifest, such as `it holds the character U+001B`, or None if it is fit."""
    found = _FORBIDDEN.search(text)
    return None if found is None else f"it holds the character U+{ord(found[0]):04X}"


def unfit_name(text: str) -> str | None:
    """Return what makes a text unfit as a label or a name, or None if it is fit."""
    if not text.strip(BLANKS):
        return "it is empty"
    if text.strip(BLANKS) != text:
        return "it begins or ends with a blank"
    if len(text) > LONGEST_NAME:
        return f"it has more than {LONGEST_NAME} characters"
    return forbidden(text)


def unfit_labels(labels: Sequence[str]) -> str | None:
    """Return what makes texts unfit as the labels of a model, with the index of the label, or None if they are fit."""
    if len(labels) > MOST_LABELS:
        return f"there are {len(labels)} labels; there can be at most {MOST_LABELS}"
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        if problem := unfit_name(label):
            return f"label {index} is {shown(label)}: {problem}"
        if label in first:
            return f"label {index} is {shown(label)}, and so is label {first[label]}"
        first[label] = index
    return None


def shown(text: str, most: int = 60) -> str:
    """Return a text in quotes for a message: cut to a readable length, and with what is invisible escaped."""
    return repr(text if len(text) <= most else text[:most] + "...")


def cleaned(text: str) -> str:
    """Return a text without the characters that a name cannot have, such as the name of a file for a model's name."""
    return _FORBIDDEN.sub("", text).strip(BLANKS)[:LONGEST_NAME].strip(BLANKS) or "unnamed"


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels of which no two are equal: the second of the name `crane` becomes `crane (2)`.

    Published lists of classes have such names: ImageNet's has two cranes, the bird and the machine.
    """
    taken, counts = set(labels), Counter[str]()
    result = []
    for label in labels:
        counts[label] += 1
        name = label
        if counts[label] > 1:
            while (name := f"{label} ({counts[label]})") in taken:
                counts[label] += 1
        result.append(name)
    return tuple(result)
