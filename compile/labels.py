"""The labels that a user gives for a model: a text file, or the list of a public data set by its name."""

from __future__ import annotations

from pathlib import Path

from vmp_edge.errors import UsageError
from vmp_edge.names import BLANKS, distinct, shown, unfit_labels, unfit_name
from vmp_edge.progress import note
from vmp_edge.zoo import LABEL_LISTS, read_list

_LONGEST_LIST = 16 << 20  # bytes of a file of labels


def labels_by(text: Path) -> tuple[str, ...]:
    """Return the labels of a file, or those of a data set (a key of `LABEL_LISTS`) if there is no file of this name.

    Raises:
        UsageError: See `read_labels`.
    """
    name = str(text)
    if name in LABEL_LISTS and not text.exists():
        note(f"vmp-edge: labels of {LABEL_LISTS[name]}")
        return read_list(name)
    return read_labels(text)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a text file with one label on each line.

    A byte order mark, ends of lines as Windows writes them, and blanks around a label do no harm. Labels that are equal
    get numbers, and a message says so.

    Raises:
        UsageError: The file cannot be read, is not in UTF-8, has no labels, or has one that cannot be a label.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_LIST + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a text file with a label a line ({error})") from error
    except UnicodeDecodeError as error:
        broken = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {broken} is not in UTF-8: save the file as UTF-8 and try again") from error
    if len(content) > _LONGEST_LIST:
        raise UsageError(f"{path}: is larger than {_LONGEST_LIST >> 20} MiB: it is not a list of labels")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    labels = []
    for number, line in enumerate(lines, 1):
        if not (label := line.strip(BLANKS + "\t")):
            continue
        if problem := unfit_name(label):
            raise UsageError(f"{path}: line {number} is {shown(label)}, which cannot be a label: {problem}")
        labels.append(label)
    if not labels:
        raise UsageError(f"{path}: holds no labels; it should have one a line")
    return _distinct(path, tuple(labels))


def _distinct(path: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    result = distinct(labels)
    if changed := [new for old, new in zip(labels, result, strict=True) if old != new]:
        named = ", ".join(map(shown, changed[:3])) + (", ..." if len(changed) > 3 else "")
        note(f"vmp-edge: {path}: labels that are there before got a number: {named}")
    if problem := unfit_labels(result):
        raise UsageError(f"{path}: {problem}")
    return result
