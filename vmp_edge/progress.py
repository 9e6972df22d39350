"""Show on standard error what a long piece of work is doing, for how long, and how far it is where that can be counted.

On a terminal one line is kept up to date. Elsewhere, in logs and pipes, and where several processes share a terminal, a
line is written every 15 seconds, so that nothing is silent for longer. Only one piece of work is shown at a time, with
those around it: a step that begins inside another one becomes part of that one's line.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

REFRESH = 1.0  # seconds between two states of a terminal's line
SILENCE = 15.0  # most seconds between two lines elsewhere
TELLING = 2.0  # seconds after which the time left is estimated
CLEAR = "\r\x1b[K"  # to the beginning of the line, and clear it


class Step:
    """A piece of work that may take long; a context manager.

    Args:
        what: What is done, for people.
        total: How many items there are; None if they cannot be counted.
        unit: What the items are, in the plural.
        done: How many of them are done already.
        quiet: Whether its beginning and its end are not worth a line of their own.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "", done: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.unit, self.quiet = _plain(what), total, unit, quiet
        self.figures = ""  # what the work has measured so far, for people
        self._first = self._done = done
        self._start = time.monotonic()

    def __enter__(self) -> Step:
        self._start = time.monotonic()
        _display.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            ending: str | None = f"{self.elapsed:.1f} s" if self.elapsed < 60 else duration(self.elapsed)
        else:  # of Ctrl-C the command itself says that it was stopped
            ending = "failed" if issubclass(kind, Exception) else None
        _display.end(self, ending)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def advance(self, count: int = 1) -> None:
        """Count items that are done."""
        self._done += count

    def state(self) -> str:
        """Return how far the work is: `12 of 64 clips, 45 s, about 3 min left`."""
        elapsed, done = self.elapsed, self._done - self._first
        if self.total is None:
            return duration(elapsed)
        parts = [f"{self._done} of {self.total}{f' {self.unit}' if self.unit else ''}", duration(elapsed)]
        if done > 0 and elapsed >= TELLING and self._done < self.total:
            parts.append(f"about {duration((self.total - self._done) * elapsed / done)} left")
        if self.figures:
            parts.append(self.figures)
        return ", ".join(parts)


class _Display:
    """The steps that run, and the thread that shows the innermost one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._steps: list[Step] = []
        self._stream: TextIO | None = sys.stderr  # None where the program has no error output
        self._terminal = False
        self.muted = False  # whether notes are left out
        self.name = ""  # of this process, if others write to the same terminal
        self._drawn = False  # whether the terminal's line shows a step
        self._last = 0.0  # when something was shown
        self._wake = threading.Event()  # set when the thread shall end

    @property
    def active(self) -> bool:
        """Whether a step runs."""
        return bool(self._steps)

    def begin(self, step: Step) -> None:
        """Show a step until its end."""
        with self._lock:
            if not self._steps:
                # compilers' output is silenced by replacing sys.stderr, which must not silence this
                self._stream, self._terminal = sys.stderr, _is_terminal(sys.stderr) and not self.name
                self._wake = threading.Event()
                threading.Thread(target=self._keep_showing, args=(self._wake,), name="progress", daemon=True).start()
            self._steps.append(step)
            if self._terminal:
                self._draw()
            elif not step.quiet:
                self._write(f"{self._title()} ...\n")
            if len(self._steps) == 1 or not step.quiet:
                self._last = time.monotonic()

    def end(self, step: Step, ending: str | None) -> None:
        """Say how long a step took, or that it failed."""
        with self._lock:
            title = self._title(step)
            self._steps = self._steps[: self._steps.index(step)] if step in self._steps else self._steps
            if not self._steps:
                self._wake.set()
            self._clear()
            if ending is not None and not step.quiet:
                self._write(f"{title} ... {ending}\n")
                self._last = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line between those of the steps."""
        with self._lock:
            if self.muted:
                return
            stream = self._stream if self._steps else sys.stderr
            self._clear()
            _write(stream, f"{_plain(text)}\n")
            if self._terminal and self._steps:
                self._draw()

    def _title(self, step: Step | None = None) -> str:
        """What is done, from the outermost step to the innermost, or to `step`."""
        steps = self._steps if step is None or step not in self._steps else self._steps[: self._steps.index(step) + 1]
        return ": ".join([*([self.name] if self.name else []), *(inner.what for inner in steps)])

    def _keep_showing(self, wake: threading.Event) -> None:
        while not wake.wait(REFRESH):
            with self._lock:
                if wake.is_set() or not self._steps:
                    return
                if self._terminal:
                    self._draw()
                elif time.monotonic() - self._last >= SILENCE - REFRESH / 2:
                    self._write(f"{self._title()} ... {self._steps[-1].state()}\n")
                    self._last = time.monotonic()

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        state = f" ... {self._steps[-1].state()}"
        self._write(f"{CLEAR}{self._title()[: max(width - len(state), 0)]}{state}")
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._write(CLEAR)
            self._drawn = False

    def _write(self, text: str) -> None:
        _write(self._stream, text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.write(text)
            stream.flush()


def _plain(text: str) -> str:
    """Return a text in one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


_display = _Display()


def note(text: str) -> None:
    """Write a line to standard error that does not disturb the progress."""
    _display.note(text)


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Leave notes out for a while, for work that repeats what the user was told before."""
    before, _display.muted = _display.muted, True
    try:
        yield
    finally:
        _display.muted = before


@contextlib.contextmanager
def among_others(name: str) -> Iterator[None]:
    """Show progress in whole lines that begin with a name, while other processes write to the same terminal.

    Two processes that each keep the terminal's line up to date would overwrite each other's.
    """
    before, _display.name = _display.name, _plain(name)
    try:
        yield
    finally:
        _display.name = before


@contextlib.contextmanager
def part(what: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
    """Make a piece of work a part of the step that runs; nothing is shown if none does.

    Args:
        what: What is done, for people.
        total: How many items there are; None if they cannot be counted.
        unit: What the items are, in the plural.
    """
    step = Step(what, total, unit, quiet=True)
    if not _display.active:
        yield step
        return
    with step:
        yield step


class Bar:
    """What `tqdm.tqdm` is: wrap an iterable, or call `update` and `close`. It is shown as a `Step`.

    Args:
        items: What to iterate over; None for a bar that is moved on by `update`.
        total: How many items there are; None takes their length, if they have one.
        desc: What is done, for people.
        unit: What an item is, in the singular.
        initial: How many items are done already.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        total: int | None = None,
        desc: str = "working",
        unit: str = "item",
        initial: int = 0,
    ) -> None:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        self._items = items
        self._step: Step | None = Step(desc, total, f"{unit}s", initial, quiet=True)
        if items is None:
            self._step.__enter__()

    def __iter__(self) -> Iterator[Any]:
        assert self._items is not None and self._step is not None
        with self._step as step:
            for item in self._items:
                yield item
                step.advance()

    def update(self, count: int = 1) -> None:
        """Count items that are done."""
        if self._step is not None:
            self._step.advance(count)

    def set_postfix(self, **figures: Any) -> None:
        """Show figures behind the count. tqdm's option `refresh` has no effect."""
        if self._step is not None:
            self._step.figures = " ".join(f"{name}={value}" for name, value in figures.items() if name != "refresh")

    def __del__(self) -> None:  # work that failed does not close its bar
        self.close()

    def close(self) -> None:
        """End the bar."""
        if self._step is not None and self._items is None:
            self._step.__exit__(None, None, None)
            self._step = None


def duration(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False
