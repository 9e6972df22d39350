"""GStreamer pipelines, run by OpenCV or by `gst-launch-1.0`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from io import BufferedReader

import cv2

from ..errors import MissingDependencyError, SourceError
from ..masking import masked, without_secrets
from .base import Frame, Source
from .capture import open_capture
from .y4m import Y4mReader


def open_pipeline(pipeline: str) -> Source:
    """Open a GStreamer pipeline.

    OpenCV runs the pipeline if it was built with GStreamer. The OpenCV that pip installs was not, so `gst-launch-1.0`
    runs the pipeline instead.

    Args:
        pipeline: The pipeline's elements. A final `appsink` is replaced.

    Raises:
        MissingDependencyError: OpenCV has no GStreamer, and `gst-launch-1.0` is not installed.
        SourceError: The pipeline is wrong, or gives no frame.
    """
    pipeline = re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip()).rstrip("! ")  # the sink is added below
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        sink = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=2"
        return open_capture(f"{pipeline} ! {sink}", "pipeline", live=True, backend=cv2.CAP_GSTREAMER)
    return GstLaunchSource(pipeline)


class GstLaunchSource:
    """A GStreamer pipeline run by `gst-launch-1.0`, which writes its frames to a pipe as YUV4MPEG2.

    Args:
        pipeline: The pipeline's elements without the sink.

    Raises:
        MissingDependencyError: `gst-launch-1.0` is not installed.
        SourceError: The pipeline is wrong, or gives no frame.
    """

    def __init__(self, pipeline: str) -> None:
        self.name = "pipeline"
        self._pipeline = pipeline
        self.live = True
        self.frame_count: int | None = None
        self._process, self._pipe = _launch(pipeline)
        self._errors: deque[str] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._closed = False
        try:
            self._reader = Y4mReader(self._pipe)
        except SourceError as error:
            self._finish()
            self._pipe.close()
            raise SourceError(
                f"the pipeline gives no frames ({self._complaint() or 'it said nothing'}): {masked(pipeline)}"
            ) from error
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
        complaint = self._complaint() or str(failure or "it said nothing")
        ending = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise SourceError(f"the pipeline ended with {ending} ({complaint})") from failure

    def close(self) -> None:
        """End the pipeline. A `read` that waits returns."""
        self._closed = True
        self._finish()

    def _listen(self) -> None:
        """Collect GStreamer's messages, in a thread of its own."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._errors.append(line.decode(errors="replace").strip())

    def _complaint(self) -> str:
        """Return GStreamer's first error, or its first message if there is no error."""
        self._listener.join(timeout=1.0)
        lines = [line for line in self._errors if line]
        errors = [line for line in lines if "ERROR" in line or "WARNING" in line or "erroneous" in line]
        return without_secrets((errors or lines or [""])[0], self._pipeline)[:200]

    def _finish(self) -> int:
        """Wait for the process to end, and return its exit code. End it if this source is closed, or after 2 seconds.

        The pipe stays open until the process has ended, so that a `read` that waits comes to the pipe's end.
        """
        if self._closed:
            self._process.terminate()
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code


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
        raise SourceError(f"the pipeline cannot be split into words ({error}): {masked(pipeline)}") from error
    # The frames have a pipe of their own, because GStreamer's elements print to the standard output as they like.
    read_end, write_end = os.pipe()
    # With sync=true a pipeline that reads a file runs at the file's rate, so that its timestamps are right too.
    sink = f"! videoconvert ! video/x-raw,format=I420 ! y4menc ! fdsink sync=true fd={write_end}"
    try:
        process = subprocess.Popen(
            [program, "-q", *elements, *sink.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
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
