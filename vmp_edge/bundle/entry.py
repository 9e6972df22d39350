"""Reading one mapping of a manifest: typed access to its keys, with an error that names the key."""

from __future__ import annotations

from typing import Any

from ..errors import BundleError
from ..names import shown, unfit_name


class Entry:
    """A mapping that is being read. Each method returns the value of one key, after checking that it is there.

    The errors do not name the file: the reader of the file adds its name.

    Args:
        values: The mapping.
        where: Path of keys that leads to the mapping, such as `input`. It is empty for the whole manifest.

    Raises:
        BundleError: `values` is not a mapping. The methods raise it for a key that is missing or has a wrong value.
    """

    def __init__(self, values: object, where: str) -> None:
        self._where = where
        if not isinstance(values, dict):
            raise BundleError(f"needs a mapping{' for ' + where if where else ''}, found {_kind(values)}")
        self.values: dict[Any, Any] = values

    def text(self, key: str) -> str:
        """Return a text that may be a name: not empty, without control characters and without blanks around it."""
        value: str = self._get(key, str, "a text")
        if not value:
            raise BundleError(f"needs a text for {self._path(key)!r}, found an empty one")
        if problem := unfit_name(value):
            raise BundleError(f"has {shown(value)} for {self._path(key)!r}: {problem}")
        return value

    def integer(self, key: str, minimum: int | None = None, maximum: int | None = None) -> int:
        """Return a whole number of at least the minimum and at most the maximum."""
        value: int = self._get(key, int, "a whole number")
        if minimum is not None and value < minimum:
            raise BundleError(f"needs at least {minimum} for {self._path(key)!r}, found {value}")
        if maximum is not None and value > maximum:
            raise BundleError(f"needs at most {maximum} for {self._path(key)!r}, found {value}")
        return value

    def number(self, key: str, minimum: float, maximum: float) -> float:
        """Return a positive number from the minimum to the maximum."""
        value = float(self._get(key, (int, float), "a positive number"))
        if not minimum <= value <= maximum:
            raise BundleError(
                f"needs a positive number from {minimum:g} to {maximum:g} for {self._path(key)!r}, found {value:g}"
            )
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a mapping as a plain dict."""
        value: dict[str, Any] = self._get(key, dict, "a mapping")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of at least one text, each of which may be a name."""
        texts = self.labels(key)
        for index, value in enumerate(texts):
            if problem := unfit_name(value):
                raise BundleError(f"has {shown(value)} in {self._path(key)!r} at index {index}: {problem}")
        return texts

    def labels(self, key: str, least: int = 1) -> tuple[str, ...]:
        """Return a list of at least so many texts, whatever the texts are."""
        values = self._get(key, list, "a list of texts")
        for value in values:
            if not isinstance(value, str):
                raise BundleError(f"needs texts in {self._path(key)!r}, found {_kind(value)} (put it in quotes)")
        if len(values) < least:
            raise BundleError(f"needs at least one entry in {self._path(key)!r}")
        return tuple(values)

    def entry(self, key: str) -> Entry:
        """Return a mapping as another `Entry`."""
        return Entry(self._get(key, dict, "a mapping"), self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _get(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        name = self._path(key)
        if key not in self.values:
            raise BundleError(f"lacks {name!r}")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BundleError(f"needs {expected} for {name!r}, found {_kind(value)}")
        return value


def _kind(value: object) -> str:
    """Return the type and the value for an error message, cut to a readable length."""
    return f"{type(value).__name__} {value!r:.40}" if value is not None else "nothing"
