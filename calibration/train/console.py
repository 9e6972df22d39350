"""The console on which a training says what it does: lines of the result, messages, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..decoding import Progress


@dataclass(frozen=True)
class Console:
    """Where a training says what it does.

    Attributes:
        say: Prints a line of the result.
        message: Prints a line to the user that is not the result.
        progress: Makes a progress bar, like `tqdm.tqdm`.
    """

    say: Callable[[str], None]
    message: Callable[[str], None]
    progress: Progress

    def row(self, name: str, text: str) -> None:
        """Print a name and what there is to say of it."""
        self.say(f"{name:>24}  {text}")


class _NoBar:
    """A progress bar that shows nothing."""

    def __init__(self, items: Iterable[Any] = (), **options: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def update(self, count: int = 1) -> None:
        """Show nothing."""

    def set_postfix(self, **figures: Any) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


SILENCE = Console(lambda text: None, lambda text: None, _NoBar)  # of the processes besides the first
