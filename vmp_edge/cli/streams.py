"""The standard streams as commands use them: closed, full or of a small character set, they never give a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, cast

_DESCRIPTORS = {"stdin": 0, "stdout": 1, "stderr": 2}


class OutputLostError(KeyboardInterrupt):
    """The standard output takes no more. The program stops as after Ctrl-C: what it was writing to files is finished.

    Args:
        cause: The failure of the write.
    """

    def __init__(self, cause: OSError) -> None:
        self.exit_code = 1
        self.reader_is_gone = cause.errno == errno.EPIPE  # as in `vmp-edge ... | head`
        reason = "it is closed" if cause.errno == errno.EBADF else cause.strerror or str(cause)
        super().__init__(f"nothing more can be written to the standard output: {reason}")


class Output:
    """A text stream that escapes what its encoding cannot write, and fails at most once.

    Args:
        stream: The stream that it stands for.
        needed: True raises `OutputLostError` at the first write that fails. False, and every later failure, is silent.

    Attributes:
        objects: The number of objects that `output.print_json` has printed.
        needed: As the argument; False from the first failure on.
    """

    def __init__(self, stream: IO[str], needed: bool) -> None:
        self._stream = stream
        self.needed = needed
        self.objects = 0

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        with self._at_most_one_failure():
            self._stream.write(self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._at_most_one_failure():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        encoding, errors = getattr(self._stream, "encoding", None), getattr(self._stream, "errors", None)
        if text.isascii() or not encoding:
            return text
        try:
            text.encode(encoding, errors or "strict")
        except UnicodeEncodeError:
            return text.encode(encoding, "backslashreplace").decode(encoding)
        return text

    @contextlib.contextmanager
    def _at_most_one_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            needed, self.needed = self.needed, False
            self._discard()
            if needed:
                raise OutputLostError(error) from error

    def _discard(self) -> None:
        """Let all further writes, that of the interpreter at its exit too, go nowhere."""
        with contextlib.suppress(OSError, ValueError):  # without a descriptor, nothing is flushed later
            descriptor = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` be an `Output` each for a while. Inside another such while, do nothing.

    The standard output is needed, the standard error output is not: without it, messages are lost and the work goes on.
    """
    if isinstance(sys.stdout, Output):
        yield
        return
    _fill_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(Any, (Output(sys.stdout, needed=True), Output(sys.stderr, needed=False)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_closed() -> None:
    """Open what was closed when the program started, so that no file of the program gets the number of a stream.

    The stand-in of an output cannot be written to: a write fails as on the closed one.
    """
    for name, descriptor in _DESCRIPTORS.items():
        is_open = True
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number, which is this one
            is_open = False
        if getattr(sys, name) is None:
            if is_open:  # something else has this number by now
                descriptor = os.open(os.devnull, os.O_RDONLY)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
