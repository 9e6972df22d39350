"""The file of a gallery: NumPy arrays in a zip file, and a JSON text that describes them.

Nothing that the file says about itself is trusted. The names, shapes and sizes of all members are checked before any of
them is read, so that a file never takes more memory than `MOST_BYTES`.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt

from .errors import GalleryError
from .files import whole

FORMAT = 1  # of classes by examples
WITH_TEXTS = 2  # of classes by texts, which a reader of format 1 would take for examples
MOST_BYTES = 256 << 20
LEAST, MOST = 0.001, 100.0  # of a temperature
_MOST_TEXT = 4 << 20  # characters of the description
_MOST_TAKES = 1_000_000
_LONGEST_DIRECTORY = 4096  # bytes; five members need less than 300
_LONGEST_HEADER = 1024
_END = struct.Struct("<4s4H2LH")  # the end of a zip file, which has no comment
_HEADER = re.compile(r"\{'descr': '<([a-zA-Z])(\d{1,9})', 'fortran_order': False, 'shape': \(([\d, ]{0,60})\), \} *\n")
_KINDS = {  # the type and the number of dimensions of each array
    "gallery": ("U", 0),
    "examples": ("f4", 2),
    "classes": ("i4", 1),
    "takes": ("i4", 1),
    "negatives": ("f4", 2),
}
_DAMAGED = (  # what the standard library raises for damaged zip files and texts
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,  # a member with a password; RecursionError is one, too
    EOFError,
    MemoryError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
)


@dataclass(frozen=True)
class _Member:
    """The shape and the bytes of one array."""

    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, eq=False)
class Content:
    """What the file of a gallery holds.

    Args:
        model: The model that the features come from.
        size: C, the number of features of an example.
        names: The names of the K classes.
        examples: Features of the examples, float32 (N, C).
        classes: Index of the class of each example, int32 (N,).
        takes: Number of the take of each example, int32 (N,).
        negatives: Features of examples of none of the classes, float32 (M, C).
        temperature: The temperature of classes by texts; None if the classes are of examples.
    """

    model: str
    size: int
    names: tuple[str, ...]
    examples: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    takes: npt.NDArray[np.int32]
    negatives: npt.NDArray[np.float32]
    temperature: float | None = None


def write(path: str | os.PathLike[str], content: Content) -> None:
    """Write a gallery to one file. Whatever happens, the file is afterwards either the old or the new one.

    Raises:
        GalleryError: The file cannot be written, or the gallery is too large.
    """
    target = Path(os.path.realpath(path))
    description = {
        "format": FORMAT if content.temperature is None else WITH_TEXTS,
        "model": content.model,
        "features": content.size,
        "names": list(content.names),
        **({} if content.temperature is None else {"temperature": content.temperature}),
    }
    arrays = {
        "gallery": np.array(json.dumps(description, ensure_ascii=False, indent=1)),
        "examples": content.examples,
        "classes": content.classes,
        "takes": content.takes,
        "negatives": content.negatives,
    }
    if sum(array.nbytes for array in arrays.values()) > MOST_BYTES - _LONGEST_DIRECTORY:
        raise GalleryError(f"{target} would be larger than {MOST_BYTES >> 20} MiB: enroll fewer examples")
    try:
        with whole(target) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise GalleryError(f"{target} cannot be written: {error.strerror or error}") from error


def read(path: str | os.PathLike[str]) -> Content:
    """Read a gallery that `write` wrote.

    Raises:
        GalleryError: There is no such file, or it is not a gallery of this version.
    """
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise GalleryError(f"{file} cannot be read: it is not a plain file, as `vmp-edge enroll` writes it")
        with file.open("rb") as opened:
            return _content(_members(opened, file))
    except FileNotFoundError as error:
        raise GalleryError(f"the gallery {file} does not exist: make one with `vmp-edge enroll`") from error
    except OSError as error:
        raise GalleryError(f"{file} cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise damaged(file, error) from error


def damaged(path: str | os.PathLike[str], error: BaseException) -> GalleryError:
    """Return the error for a file that is not a gallery, or one that makes no sense."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return GalleryError(f"{path} is not a gallery, or is damaged ({reason:.160}): enroll again")


def _members(file: IO[bytes], path: Path) -> dict[str, _Member]:
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise GalleryError(f"{path} is larger than {MOST_BYTES >> 20} MiB: it is not a gallery")
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if strange := set(entries) - {f"{name}.npy" for name in _KINDS}:
            raise ValueError(f"it holds {min(strange)!a:.60}, which is no part of a gallery")
        if sum(entry.file_size for entry in entries.values()) > MOST_BYTES:
            raise ValueError("its arrays would take too much memory")
        return {name: _member(archive, entries[f"{name}.npy"], name) for name in _KINDS}


def _check_directory(file: IO[bytes], size: int) -> None:
    """Check the size of a zip file's directory, which is else read as a whole, and that nothing follows it."""
    if size < _END.size:
        raise ValueError("it is too short")
    file.seek(size - _END.size)
    mark, _, _, _, count, length, _, comment = _END.unpack(file.read(_END.size))
    if mark != b"PK\5\6" or comment:
        raise ValueError("it does not end like a zip file")
    if count != len(_KINDS) or length > _LONGEST_DIRECTORY:
        raise ValueError(f"it holds {count} members instead of {len(_KINDS)}")
    file.seek(0)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> _Member:
    """Read one array, after checking that its size, type and shape are as they should be and agree."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its array '{name}' is compressed in an unknown way")
    with archive.open(entry) as file:
        start = file.read(10)
        length = int.from_bytes(start[8:], "little")
        if start[:8] != b"\x93NUMPY\1\0" or length > _LONGEST_HEADER:
            raise ValueError(f"its array '{name}' is no NumPy array")
        header = _HEADER.fullmatch(file.read(length).decode("latin-1"))
        if header is None:
            raise ValueError(f"its array '{name}' is no NumPy array of a known type")
        kind, digits = header[1], int(header[2])
        shape = tuple(int(text) for text in header[3].split(",") if text.strip())
        expected, dimensions = _KINDS[name]
        if len(shape) != dimensions or (kind if expected == "U" else f"{kind}{digits}") != expected:
            raise ValueError(f"its array '{name}' has another type or shape than it should")
        size = math.prod(shape) * (4 * digits if kind == "U" else digits)
        if size != entry.file_size - len(start) - length or (kind == "U" and digits > _MOST_TEXT):
            raise ValueError(f"its array '{name}' has another size than it says")
        data = file.read(size)
        if len(data) != size or file.read(1):
            raise ValueError(f"its array '{name}' ends too early or too late")
    return _Member(shape, data)


def _content(members: Mapping[str, _Member]) -> Content:
    """Check that the arrays and their description fit each other."""
    text = members["gallery"].data.decode("utf-32-le").rstrip("\0")
    description = json.loads(text, parse_int=_whole_number, parse_constant=_not_a_number)
    found = description.get("format") if isinstance(description, dict) else None
    if type(found) is not int or found not in (FORMAT, WITH_TEXTS):
        raise ValueError(f"it has format {found!r:.20}, this version reads {FORMAT} and {WITH_TEXTS}")
    temperature = description["temperature"] if found == WITH_TEXTS else None
    if found == WITH_TEXTS and not (type(temperature) is float and LEAST <= temperature <= MOST):
        raise ValueError("its temperature makes no sense")
    model, size, names = description["model"], description["features"], description["names"]
    if not isinstance(model, str) or type(size) is not int or size < 1:
        raise ValueError("its entries make no sense")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError("its names are not texts, or two of them are the same")
    arrays = {name: np.ndarray(m.shape, f"<{_KINDS[name][0]}", m.data) for name, m in members.items() if m.shape}
    examples, classes, takes, negatives = (arrays[name] for name in ("examples", "classes", "takes", "negatives"))
    if not len(examples) == len(classes) == len(takes) or not examples.shape[1] == negatives.shape[1] == size:
        raise ValueError("its arrays do not fit each other")
    if np.unique(classes).tolist() != list(range(len(names))):
        raise ValueError("its classes and names do not fit each other")
    if len(takes) and not 0 <= takes.min() <= takes.max() < _MOST_TAKES:
        raise ValueError("its numbers of takes make no sense")
    if temperature is not None and (len(examples) != len(names) or len(negatives)):
        raise ValueError("it holds something else than one feature of each text")
    return Content(model, size, tuple(names), examples, classes, takes, negatives, temperature)


def _whole_number(text: str) -> int:
    if len(text) > 10:
        raise ValueError("its numbers make no sense")
    return int(text)


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is among its entries")
