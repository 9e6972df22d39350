"""`iterate`: the predictions of a source, one after another: the work of `Recognizer.stream`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..masking import without_secrets
from ..prediction import Prediction
from ..progress import note
from ..results import Results
from ..sources import Paced, Source, open_source
from ..sources.waiting import close_in_background
from ..stream.options import StreamOptions
from ..stream.stream import Stream
from ..stream.variants import load_variants
from .sampling import doubt, too_short, too_slow

if TYPE_CHECKING:
    from ..recognizer import Recognizer

_TICK = 0.05  # seconds within which a signal is noticed while no frames come
_TIMEOUT = 1.0  # seconds that the end of a live source is waited for; if it hangs, it is left behind

Image = npt.NDArray[np.uint8]


class _Reader(Protocol):
    """Gives an image, its time in seconds if it has one, and whether it is the first after a gap; None at the end."""

    def __call__(self) -> tuple[Image, float | None, bool] | None: ...


def iterate(
    recognizer: Recognizer,
    source: Source | str | int | os.PathLike[str] | Iterable[Image],
    options: StreamOptions | int | None,
    source_fps: float | None,
    realtime: bool,
    on_message: Callable[[str], None] | None,
    changes: Mapping[str, Any],
) -> Results:
    """Open a source and return its predictions. The arguments are those of `Recognizer.stream`."""
    tell = on_message or _write
    merged = StreamOptions.merge(options, changes)
    with contextlib.ExitStack() as stack:
        opened = _opened(source, tell, source_fps, stack)
        if realtime:
            if opened is None:
                raise UsageError("realtime is for files: frames come as fast as they are given")
            opened = opened if opened.live else Paced(opened)
        if merged.budget is not None and not (opened is not None and opened.live):
            raise UsageError("a budget is for a live source: play a file at its own pace with realtime=True")
        stream = Stream(
            recognizer,
            merged,
            bgr=opened is not None,
            source_fps=source_fps if opened is None else None,
            variants=load_variants(recognizer, merged, recognizer.threads, stack),
        )
        for warning in (doubt(recognizer.manifest, merged), too_slow(stream.window, opened)):
            if warning is not None:
                tell(warning)
        if opened is None:
            assert isinstance(source, Iterable) and not isinstance(source, str)
            predictions = _in_order(_reader_of_frames(source, stack), stream, tell)
        elif opened.live:
            predictions = _newest(opened, stream, stack)
        else:
            predictions = _in_order(_reader_of_source(opened), stream, tell)
        closing = stack.pop_all()
    return Results(predictions, closing)


def _write(text: str) -> None:
    note(without_secrets(f"vmp-edge: {text}"))


def _opened(
    source: Source | str | int | os.PathLike[str] | Iterable[Image],
    tell: Callable[[str], None],
    fps: float | None,
    stack: contextlib.ExitStack,
) -> Source | None:
    """Open a source by its address, which the stack closes. Return None for an iterable of frames.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(source, str | os.PathLike | int):
        source = open_source(str(source) if isinstance(source, int) else os.fspath(source), tell, fps=fps)
    if not isinstance(source, Iterable):
        if all(hasattr(source, name) for name in ("read", "close", "live", "fps", "name")):
            opened = source
            stack.callback(lambda: close_in_background(opened).join(_TIMEOUT))  # it may hang
            return opened
        raise UsageError(f"a source is an address, an open source or frames, not a {type(source).__name__}")
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise UsageError(f"frames in an array: uint8 (T, H, W, 3), not {source.dtype} {source.shape}")
    return None


def _reader_of_source(source: Source) -> _Reader:
    def read() -> tuple[Image, float | None, bool] | None:
        frame = source.read()
        return None if frame is None else (frame.image, frame.timestamp, frame.restarted)

    return read


def _reader_of_frames(frames: Iterable[Image], stack: contextlib.ExitStack) -> _Reader:
    """Return what reads an iterable of frames, which is closed by the stack if it can be, as a generator can."""
    images = iter(frames)
    if (close := getattr(frames, "close", None)) is not None:
        stack.callback(close)

    def read() -> tuple[Image, float | None, bool] | None:
        image = next(images, None)
        return None if image is None else (image, None, False)

    return read


def _in_order(read: _Reader, stream: Stream, tell: Callable[[str], None]) -> Generator[Prediction, None, None]:
    """Recognise every window of what does not go on by itself."""
    seen = False
    while (frame := read()) is not None:
        image, timestamp, restarted = frame
        if restarted:
            stream.reset()
        if (prediction := stream.push(image, timestamp)) is not None:
            seen = True
            yield prediction
    if not seen and (reason := too_short(stream.window)) is not None:
        tell(reason)


def _newest(source: Source, stream: Stream, stack: contextlib.ExitStack) -> Generator[Prediction, None, None]:
    """Recognise the newest window of a live source whenever the caller wants a result."""
    capture = _Capture(_reader_of_source(source), stream)
    stack.callback(capture.end)
    stack.callback(close_in_background, source)  # before the thread is waited for: it may be reading
    return capture.predictions()


class _Capture(threading.Thread):
    """Takes the frames of a live source as they come, from the first result on."""

    def __init__(self, read: _Reader, stream: Stream) -> None:
        super().__init__(name="vmp-edge capture", daemon=True)
        self._read, self._stream = read, stream
        self._news = threading.Event()
        self._ended = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Capture until the source ends, fails or is closed."""
        try:
            while (frame := self._read()) is not None:
                image, timestamp, restarted = frame
                if restarted:
                    self._stream.reset()
                if self._stream.add(image, timestamp):
                    self._news.set()
        except BaseException as error:  # `predictions` raises it
            self._failure = error
        finally:
            self._ended = True
            self._news.set()

    def end(self) -> None:
        """Wait until the thread has noticed that the source was closed. If the source hangs, it is left behind."""
        if self.is_alive():
            self.join(_TIMEOUT)

    def predictions(self) -> Generator[Prediction, None, None]:
        """Recognise windows in the caller's thread."""
        self.start()
        while True:
            self._news.wait(_TICK)
            ended = self._ended  # before the last window is looked for
            self._news.clear()
            if (prediction := self._stream.recognise()) is not None:
                yield prediction
            elif ended:
                break
        if self._failure is not None:
            raise self._failure
