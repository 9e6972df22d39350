"""GStreamer pipelines, run by OpenCV or by `gst-launch-1.0`."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from io import BufferedReader
from typing import IO

import cv2

from ..errors import MissingDependencyError, SourceError
from ..masking import masked, without_secrets
from .base import AddressError, Frame, Message, Source
from .capture import open_capture
from .waiting import in_background, wait
from .y4m import Y4mReader

_ENCODER = "vmp_edge_frames"  # name of our element in the pipeline whose caps say what the frames are
_CAPS = re.compile(_ENCODER + r"\S*:sink: caps = .*")
_FULL_RANGE = re.compile(r"colorimetry=(?:\(string\))?\"?1:")  # GStreamer's number of the range from 0 to 255
_PROPERTIES = re.compile(r"[A-Za-z]\w*(\s+[A-Za-z][\w-]*\s*=\s*\S.*)")


def is_pipeline(text: str) -> bool:
    """Return whether an address is a pipeline: elements with `!` between them, or one element with properties.

    A URL in it makes no difference. But in a URL by itself, a `!` belongs to the URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return re.search(r"\s!\s", text) is not None
    return "!" in text or _PROPERTIES.fullmatch(text) is not None


def open_pipeline(pipeline: str, tell: Message, cancelled: threading.Event) -> Source:
    """Open a GStreamer pipeline, and wait for its first frame.

    OpenCV runs the pipeline if it was built with GStreamer. The OpenCV that pip installs was not, so `gst-launch-1.0`
    runs the pipeline instead.

    Args:
        pipeline: The pipeline's elements. A final `appsink` is replaced.
        tell: Called with a message if there is no frame for a while.
        cancelled: Ends the waiting when it is set.

    Raises:
        MissingDependencyError: OpenCV has no GStreamer, and `gst-launch-1.0` is not installed.
        SourceError: The pipeline is wrong, or gives no frame.
    """
    pipeline = re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip()).rstrip("! ")  # the sink is added below
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        sink = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=2"
        return in_background(
            lambda: open_capture(f"{pipeline} ! {sink}", "pipeline", live=True, backend=cv2.CAP_GSTREAMER),
            "the pipeline", tell, cancelled, discard=lambda late: late.close(),
        )  # fmt: skip
    return GstLaunchSource(pipeline, tell, cancelled)


class GstLaunchSource:
    """A GStreamer pipeline run by `gst-launch-1.0`, which writes its frames to a pipe as YUV4MPEG2.

    Args:
        pipeline: The pipeline's elements without the sink.
        tell: Called with a message if there is no frame for a while.
        cancelled: Ends the waiting for the first frame when it is set.

    Raises:
        MissingDependencyError: `gst-launch-1.0` is not installed.
        SourceError: The pipeline is wrong, or gives no frame.
    """

    def __init__(self, pipeline: str, tell: Message, cancelled: threading.Event) -> None:
        self.name = "pipeline"
        self.live = True
        self.frame_count: int | None = None
        self._closed = False
        self._process, self._pipe = _launch(pipeline)
        try:
            self._messages = _Messages(self._process, pipeline)
            self._wait_for_frames(tell, cancelled)
            self._reader = Y4mReader(self._pipe)
        except SourceError as error:
            self._closed = cancelled.is_set()
            self._finish()
            self._pipe.close()
            if self._closed:
                raise
            complaint = self._messages.complaint()
            kind = AddressError if self._messages.is_wrong else SourceError
            raise kind(
                f"the pipeline gives no frames ({complaint or 'it said nothing'}): {masked(pipeline)}"
            ) from error
        except BaseException:  # an interrupt: leave no process behind
            self.close()
            self._pipe.close()
            raise
        self._reader.full_range |= self._messages.full_range()
        self.fps: float | None = self._reader.fps

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None at the pipeline's end, and after `close`.

        Raises:
            SourceError: The pipeline failed or was killed.
        """
        if self._pipe.closed:
            return None
        failure: SourceError | None = None
        try:
            image = self._reader.read()
            if image is not None:
                return Frame(image, time.monotonic())
        except SourceError as error:
            failure = error
        code = self._finish()
        self._pipe.close()
        if self._closed or (code == 0 and failure is None):
            return None
        complaint = self._messages.complaint() or str(failure or "it said nothing")
        ending = "does not end"
        if code is not None:
            ending = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise SourceError(f"the pipeline {ending} ({complaint})") from failure

    def close(self) -> None:
        """End the pipeline. A `read` that waits returns."""
        self._closed = True
        self._finish()

    def _wait_for_frames(self, tell: Message, cancelled: threading.Event) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        wait(lambda seconds: bool(poll.poll(1000 * seconds)), "the pipeline", tell, cancelled)

    def _finish(self) -> int | None:
        """Wait for the process to end, and return its exit code. End it if this source is closed, or after 2 seconds.

        The pipe stays open until the process has ended, so that a `read` that waits comes to the pipe's end. None if
        the process cannot be ended, because a driver holds it.
        """
        if self._closed:
            self._process.terminate()
        for seconds in (0.3 if self._closed else 2.0, 0.3):
            try:
                return self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return None


class _Messages:
    """What `gst-launch-1.0` says: errors on stderr, and on stdout, among other things, what the frames are like.

    Args:
        process: The process.
        pipeline: The pipeline, whose secrets its messages may quote.

    Attributes:
        is_wrong: Whether the pipeline itself is wrong, so that it is of no use to run it again.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipeline: str) -> None:
        assert process.stderr is not None and process.stdout is not None
        self.is_wrong = False
        self._pipeline = pipeline
        self._errors: deque[str] = deque(maxlen=20)
        self._caps = ""
        self._caps_known = threading.Event()
        self._listener = self._listen(process.stderr, self._keep_error)
        self._listen(process.stdout, self._look_for_caps)

    @staticmethod
    def _listen(stream: IO[bytes], take: Callable[[str], None]) -> threading.Thread:
        """Pass on each line of a stream, in a thread of its own, to its end."""

        def listen() -> None:
            with stream:
                for line in stream:
                    take(line.decode(errors="replace").strip())

        thread = threading.Thread(target=listen, name="vmp-edge pipeline", daemon=True)
        thread.start()
        return thread

    def _keep_error(self, line: str) -> None:
        self.is_wrong |= "erroneous pipeline" in line
        self._errors.append(line)

    def _look_for_caps(self, line: str) -> None:
        if match := _CAPS.search(line):
            self._caps = match[0]
            self._caps_known.set()

    def full_range(self) -> bool:
        """Return whether black is 0 and white is 255 in the frames. Call it when the first frame is there."""
        self._caps_known.wait(0.2)  # they were printed before the first frame came
        return _FULL_RANGE.search(self._caps) is not None

    def complaint(self) -> str:
        """Return GStreamer's first error, or its first message if there is no error, without secrets."""
        self._listener.join(timeout=1.0)
        lines = [line for line in self._errors if line]
        errors = [line for line in lines if "ERROR" in line or "WARNING" in line or "erroneous" in line]
        return without_secrets((errors or lines or [""])[0], self._pipeline)[:200]


def _launch(pipeline: str) -> tuple[subprocess.Popen[bytes], BufferedReader]:
    """Start `gst-launch-1.0`. Return the process, and the pipe that it writes YUV4MPEG2 to."""
    program = shutil.which("gst-launch-1.0")
    if program is None:
        raise MissingDependencyError(
            "a GStreamer pipeline needs gst-launch-1.0 (apt install gstreamer1.0-tools gstreamer1.0-plugins-base "
            "gstreamer1.0-plugins-good), or an OpenCV built with GStreamer"
        )
    try:
        elements = shlex.split(pipeline)
    except ValueError as error:
        raise AddressError(f"the pipeline cannot be split into words ({error}): {masked(pipeline)}") from error
    # The frames have a pipe of their own, because GStreamer and its elements print to the standard output.
    read_end, write_end = os.pipe()
    # With sync=true a pipeline that reads a file runs at the file's rate, so that its timestamps are right too.
    # Decoders pad their frames, and y4menc would write the padding: without allocation proposals nobody pads.
    sink = (
        "! videoconvert ! video/x-raw,format=I420 ! identity drop-allocation=true "
        f"! y4menc name={_ENCODER} ! fdsink sync=true fd={write_end}"
    )
    try:
        process = subprocess.Popen(
            [program, "-v", *elements, *sink.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(write_end,),
            start_new_session=True,  # so that Ctrl-C does not reach it: `close` ends it
        )
    except OSError as error:
        os.close(read_end)
        raise SourceError(f"{program} cannot be started: {error.strerror}") from error
    finally:
        os.close(write_end)
    return process, os.fdopen(read_end, "rb")
