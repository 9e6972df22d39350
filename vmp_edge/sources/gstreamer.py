"""GStreamer pipelines, in OpenCV or in `gst-launch-1.0`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque

import cv2

from ..errors import MissingDependencyError, SourceError
from .base import Frame, Source
from .capture import open_capture
from .y4m import Y4mReader


def open_pipeline(pipeline: str) -> Source:
    """Opens a GStreamer pipeline: in OpenCV if it can, else in `gst-launch-1.0`, which pip's OpenCV needs."""
    pipeline = re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip()).rstrip("! ")  # the sink is ours to add
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        sink = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=2"
        return open_capture(f"{pipeline} ! {sink}", "pipeline", live=True, backend=cv2.CAP_GSTREAMER)
    return GstLaunchSource(pipeline)


class GstLaunchSource:
    """A GStreamer pipeline run by `gst-launch-1.0`, its frames taken from a pipe as YUV4MPEG.

    `sync=true` lets a pipeline that reads a file run at the file's own pace, so that the clock is right for it too.

    Args:
        pipeline: Without its sink.

    Raises:
        MissingDependencyError: There is no `gst-launch-1.0`.
        SourceError: The pipeline is wrong, or gives no frame.
    """

    def __init__(self, pipeline: str) -> None:
        self.name = "pipeline"
        self.live = True
        self.frame_count: int | None = None
        program = shutil.which("gst-launch-1.0")
        if program is None:
            raise MissingDependencyError(
                "a GStreamer pipeline needs gst-launch-1.0 (apt install gstreamer1.0-tools gstreamer1.0-plugins-base "
                "gstreamer1.0-plugins-good), or an OpenCV built with GStreamer"
            )
        try:
            elements = shlex.split(pipeline)
        except ValueError as error:
            raise SourceError(f"the pipeline cannot be split into words ({error}): {pipeline}") from error
        read_end, write_end = os.pipe()
        sink = f"! videoconvert ! video/x-raw,format=I420 ! y4menc ! fdsink sync=true fd={write_end}"
        try:
            # A pipe of its own: GStreamer's elements print to the standard output as they like.
            self._process = subprocess.Popen(
                [program, "-q", *elements, *sink.split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(write_end,),
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        except OSError as error:
            os.close(read_end)
            raise SourceError(f"{program} cannot be started: {error.strerror}") from error
        finally:
            os.close(write_end)
        self._pipe = os.fdopen(read_end, "rb")
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
                f"the pipeline gives no frames ({self._complaint() or 'it said nothing'}): {pipeline}"
            ) from error
        self.fps: float | None = self._reader.fps

    def read(self) -> Frame | None:
        """Waits for the next frame; None when the pipeline has come to its end.

        Raises:
            SourceError: The pipeline failed or was killed.
        """
        if self._pipe.closed:
            return None
        broken: SourceError | None = None
        try:
            image = self._reader.read()
            if image is not None:
                return Frame(image, time.monotonic())
        except SourceError as error:
            broken = error
        code = self._finish()
        self._pipe.close()
        if self._closed or (code == 0 and broken is None):
            return None
        complaint = self._complaint() or str(broken or "it said nothing")
        ending = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise SourceError(f"the pipeline ended with {ending} ({complaint})") from broken

    def close(self) -> None:
        """Ends the pipeline; a waiting `read` returns."""
        self._closed = True
        self._finish()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._errors.append(line.decode(errors="replace").strip())

    def _complaint(self) -> str:
        """What GStreamer said: its first error, or the last thing of all."""
        self._listener.join(timeout=1.0)
        lines = [line for line in self._errors if line]
        errors = [line for line in lines if "ERROR" in line or "WARNING" in line or "erroneous" in line]
        return (errors or lines or [""])[0][:200]

    def _finish(self) -> int:
        """Ends the process if it runs, and waits for it; returns its exit code.

        The pipe stays open till the process is gone: then a waiting `read` gets its end.
        """
        if self._closed:
            self._process.terminate()
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code
