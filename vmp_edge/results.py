"""`Results`: the predictions of a source, one after another, for a loop in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from types import TracebackType

from .prediction import Prediction


class Results(Iterator[Prediction]):
    """An iterator over the predictions of a source. `Recognizer.stream` makes it.

    The source is closed when the iterator has ended or failed, when it is closed, and when nothing refers to it any
    more: for a loop over `recognizer.stream(...)` itself, that is as soon as the loop is left.

    Args:
        predictions: Recognises the source.
        close: Closes all that belongs to it.
    """

    def __init__(self, predictions: Generator[Prediction, None, None], close: contextlib.ExitStack) -> None:
        self._predictions = predictions
        self._close = close

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Prediction:
        try:
            return next(self._predictions)
        except BaseException:  # also the end
            self.close()
            raise

    def close(self) -> None:
        """Close the source. The iterator has ended then."""
        self._predictions.close()
        self._close.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end, no thread can be started
            self.close()
