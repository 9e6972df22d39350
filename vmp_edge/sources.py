"""Where frames come from: cameras, files, network streams and GStreamer pipelines, behind one interface."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.errors import MissingDependencyError, SourceError

Message = Callable[[str], None]

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds before a vanished camera is tried again, doubling
_TIMEOUT_MS = 10_000  # for a network stream to open or to give its next frame
_USUAL_FPS = 30.0  # for files that don't say


@dataclass(frozen=True)
class Frame:
    """A frame: uint8 (H, W, 3) BGR; its time in seconds; whether it is the first one after a gap.

    The time is the machine's monotonic clock for a live source, and counts from 0 by the frame rate for a file.
    """

    image: npt.NDArray[np.uint8]
    timestamp: float
    restarted: bool = False


class Source(Protocol):
    """Frames, one after another.

    Attributes:
        name: For messages.
        live: It goes on by itself: frames that are not taken in time are lost.
        fps: Frames per second, if it says.
        frame_count: How many frames there will be, if it says.
    """

    name: str
    live: bool
    fps: float | None
    frame_count: int | None

    def read(self) -> Frame | None:
        """Waits for the next frame; None at the end, and after `close`."""
        ...

    def close(self) -> None:
        """Ends it; may be called from another thread while `read` waits."""
        ...


def open_source(text: str, on_message: Message | None = None) -> Source:
    """Opens whatever a user may call a source.

    Args:
        text: A camera's number (`0`) or device (`/dev/video0`), a video file, a URL (`rtsp://...`, `http://...`), or a
            GStreamer pipeline without its sink (`v4l2src ! video/x-raw,width=640`).
        on_message: Told when a live source vanishes, is tried again, and is back.

    Raises:
        SourceError: It cannot be opened, or gives no frame.
        MissingDependencyError: A pipeline, and neither OpenCV nor the machine has GStreamer.
    """
    text = text.strip()
    tell = on_message or (lambda message: None)
    if not text:
        raise SourceError("the source is empty: give a camera number, a file, a URL or a GStreamer pipeline")
    if text.isdecimal() or re.fullmatch(r"/dev/video\d+", text):
        return _Retrying(f"camera {text}", lambda: _open_capture(_camera(text), f"camera {text}", live=True), tell)
    if "://" in text and not text.startswith("file://"):
        return _open_url(text, tell)
    path = Path(text.removeprefix("file://"))
    if "!" in text and not path.exists():
        return _Retrying("pipeline", lambda: _open_pipeline(text), tell)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise SourceError(f"the video {path} {problem}: give a video file, a camera number, a URL or a pipeline")
    return _open_capture(str(path), str(path), live=False)


def _camera(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _open_url(url: str, tell: Message) -> Source:
    name = re.sub(r"//[^/@]*@", "//", url)  # a password must not get into logs
    first = _open_capture(url, name, live=None)
    if not first.live:
        return first
    opened: list[Source] = [first]
    return _Retrying(name, lambda: opened.pop() if opened else _open_capture(url, name, live=True), tell)


class _Retrying:
    """A live source that is opened again, with growing pauses, when it vanishes.

    The first opening is not retried: a wrong name should be told at once.
    """

    def __init__(self, name: str, opener: Callable[[], Source], tell: Message) -> None:
        self.name = name
        self.live = True
        self.frame_count: int | None = None
        self._opener = opener
        self._tell = tell
        self._closed = threading.Event()
        self._swapping = threading.Lock()
        self._wait = _FIRST_WAIT
        self._opened_at = time.monotonic()
        self._source: Source | None = opener()
        self.fps: float | None = self._source.fps

    def read(self) -> Frame | None:
        restarted = False
        while not self._closed.is_set():
            source = self._source
            if source is None:
                restarted = True
                if not self._reopen():
                    break
                continue
            try:
                frame = source.read()
            except SourceError as error:
                self._lost(source, error)
                continue
            if frame is None:
                break
            return Frame(frame.image, frame.timestamp, restarted)
        return None

    def close(self) -> None:
        self._closed.set()
        with self._swapping:
            if self._source is not None:
                self._source.close()

    def _lost(self, source: Source, error: SourceError) -> None:
        source.close()
        self._source = None
        if time.monotonic() - self._opened_at > _LONGEST_WAIT:  # else it comes and goes: wait longer each time
            self._wait = _FIRST_WAIT
        if not self._closed.is_set():
            self._tell(f"{error}; trying again in {self._wait:g} s")

    def _reopen(self) -> bool:
        """Tries until the source is back (True) or this is closed (False)."""
        while not self._closed.wait(self._wait):
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            try:
                source = self._opener()
            except SourceError as error:
                self._tell(f"{error}; trying again in {self._wait:g} s")
                continue
            with self._swapping:
                self._source = source
            if self._closed.is_set():  # closed while it was being opened
                source.close()
                return False
            self._opened_at = time.monotonic()
            self._tell(f"{self.name} is back")
            return True
        return False


class _Capture:
    """OpenCV's VideoCapture: cameras, files, URLs, and pipelines where OpenCV was built with GStreamer."""

    def __init__(self, capture: Any, first: npt.NDArray[np.uint8], name: str, live: bool) -> None:
        self.name = name
        self.live = live
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = rate if 0 < rate <= 1000 else None
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count: int | None = count if not live and count > 0 else None
        self._capture = capture
        self._first: npt.NDArray[np.uint8] | None = first
        self._index = 0
        self._closed = False
        self._reading = threading.Lock()  # releasing a capture while it reads crashes

    def read(self) -> Frame | None:
        with self._reading:
            if self._closed:
                return None
            image, self._first = self._first, None
            if image is None:
                found, image = self._capture.read()
                if not found or image is None:
                    if self.live:
                        raise SourceError(f"{self.name} gives no more frames")
                    return None
        timestamp = time.monotonic() if self.live else self._index / (self.fps or _USUAL_FPS)
        self._index += 1
        return Frame(_as_bgr(image), timestamp)

    def close(self) -> None:
        self._closed = True
        # A camera that hangs in `read` is left to the end of the process rather than waited for.
        if self._reading.acquire(timeout=2.0):
            self._capture.release()
            self._reading.release()


def _open_capture(what: int | str, name: str, live: bool | None, backend: int = cv2.CAP_ANY) -> _Capture:
    """Opens a VideoCapture and reads its first frame: many sources open but give nothing.

    Args:
        what: As OpenCV takes it.
        name: For messages.
        live: None to find out: what has no number of frames is live.
        backend: OpenCV's.
    """
    quieten_opencv()
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
    is_url = isinstance(what, str) and "://" in what and backend == cv2.CAP_ANY
    capture = cv2.VideoCapture(what, cv2.CAP_FFMPEG, timeouts) if is_url else cv2.VideoCapture(what, backend)
    found, image = capture.read() if capture.isOpened() else (False, None)
    if not found or image is None:
        opened = capture.isOpened()
        capture.release()
        if isinstance(what, int) or name.startswith("camera"):
            raise SourceError(f"{name} {'gives no frames' if opened else 'cannot be opened'}{_camera_hint(what)}")
        raise SourceError(f"{name} {'has no frames that can be read' if opened else 'cannot be opened as a video'}")
    if live is None:
        live = capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    return _Capture(capture, image, name, live)


def _camera_hint(what: int | str) -> str:
    device = Path(f"/dev/video{what}" if isinstance(what, int) else what)
    if not device.exists():
        there = sorted(str(path) for path in Path("/dev").glob("video*"))
        return f": there is no {device}" + (
            f" (there are {', '.join(there)})" if there else " (no camera is connected)"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return f": no permission for {device} (join the group that owns it, usually `video`)"
    return ": does another program use it?"


def quieten_opencv() -> None:
    """Keeps OpenCV's and FFmpeg's own warnings off the terminal: what matters is said by SourceError."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5 moved it
    logging.setLogLevel(0)


def _as_bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Some cameras are grey, and say so."""
    if image.ndim == 2 or image.shape[2] == 1:
        grey: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return grey
    return image


def _open_pipeline(pipeline: str) -> Source:
    """Opens a GStreamer pipeline: in OpenCV if it can, else in `gst-launch-1.0`, which pip's OpenCV needs."""
    pipeline = re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip()).rstrip("! ")  # the sink is ours to add
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        sink = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=2"
        return _open_capture(f"{pipeline} ! {sink}", "pipeline", live=True, backend=cv2.CAP_GSTREAMER)
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


class Y4mReader:
    """Reads YUV4MPEG2 with 4:2:0 chroma frame by frame.

    The format packs rows without gaps, but GStreamer's `y4menc` writes its own row padding along when the width is not
    a multiple of 8: which of the two it is shows in where the second frame begins.

    Args:
        stream: Binary, readable, blocking.

    Raises:
        SourceError: The stream does not begin as YUV4MPEG2, or its format is another.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        header = stream.readline(1024)
        if not header.startswith(b"YUV4MPEG2 ") or not header.endswith(b"\n"):
            raise SourceError("no YUV4MPEG2 header")
        tags = {tag[:1]: tag[1:] for tag in header.decode("ascii", "replace").split()[1:]}
        try:
            self.width, self.height = int(tags["W"]), int(tags["H"])
        except (KeyError, ValueError) as error:
            raise SourceError("the YUV4MPEG2 header lacks a size") from error
        if not (0 < self.width <= 16384 and 0 < self.height <= 16384 and tags.get("C", "420").startswith("420")):
            raise SourceError(f"unsupported YUV4MPEG2 format: {header[:80]!r}")
        self.fps = _rate(tags.get("F", ""))
        rows, columns = (self.height + 1) // 2, (self.width + 1) // 2
        self._packed = _PlaneSizes((self.height, self.width), (rows, columns))
        self._padded = _PlaneSizes((2 * rows, -(-self.width // 4) * 4), (rows, -(-columns // 4) * 4))
        self._sizes: _PlaneSizes | None = self._packed if self._packed == self._padded else None
        self._ahead = b""  # of the next frame's marker

    def read(self) -> npt.NDArray[np.uint8] | None:
        """The next frame, uint8 (H, W, 3) BGR; None at the end.

        Raises:
            SourceError: The stream breaks off within a frame, or is damaged.
        """
        marker = self._ahead + self._stream.readline(256)
        self._ahead = b""
        if not marker:
            return None
        if not marker.startswith(b"FRAME") or not marker.endswith(b"\n"):
            raise SourceError("damaged YUV4MPEG2 stream: a frame does not begin with FRAME")
        content = self._exactly(self._sizes.total) if self._sizes else self._first()
        assert self._sizes is not None
        luma, *chroma = self._sizes.split(np.frombuffer(content, np.uint8))
        # OpenCV's I420 needs even sides: odd ones get one more row or column, cut off afterwards.
        (height, width), (rows, columns) = luma.shape, self._packed.chroma
        luma = np.pad(luma, ((0, max(2 * rows - height, 0)), (0, max(2 * columns - width, 0))), mode="edge")
        planes = [luma[: 2 * rows, : 2 * columns], *(plane[:, :columns] for plane in chroma)]
        packed = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(3 * rows, 2 * columns)
        image: npt.NDArray[np.uint8] = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420)
        return image[: self.height, : self.width]

    def _first(self) -> bytes:
        """Reads the first frame, finding out whether its rows are padded."""
        content = self._exactly(self._packed.total)
        ahead = self._stream.read(5)
        if ahead in (b"", b"FRAME"):
            self._sizes, self._ahead = self._packed, ahead
            return content
        self._sizes = self._padded
        content += ahead
        content += self._exactly(max(self._padded.total - len(content), 0))
        self._ahead = content[self._padded.total :]  # there may be less padding than was read ahead
        return content[: self._padded.total]

    def _exactly(self, size: int) -> bytes:
        content = self._stream.read(size)
        if len(content) != size:
            raise SourceError("the YUV4MPEG2 stream breaks off within a frame")
        return content


@dataclass(frozen=True)
class _PlaneSizes:
    """Rows and bytes per row of the luma plane and of the two chroma planes."""

    luma: tuple[int, int]
    chroma: tuple[int, int]

    @property
    def total(self) -> int:
        return self.luma[0] * self.luma[1] + 2 * self.chroma[0] * self.chroma[1]

    def split(self, content: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        first = self.luma[0] * self.luma[1]
        second = first + self.chroma[0] * self.chroma[1]
        luma, *chroma = np.split(content, [first, second])
        return [luma.reshape(self.luma), *(plane.reshape(self.chroma) for plane in chroma)]


def _rate(text: str) -> float | None:
    """Frames per second from `30:1`; None for 0:0, which means unknown."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not int(match[1]) or not int(match[2]):
        return None
    return int(match[1]) / int(match[2])


class Paced:
    """A file played at its own pace, as a camera would: what is not taken in time is lost."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.live = True
        self.name = source.name
        self.fps = source.fps
        self.frame_count = source.frame_count
        self._closed = threading.Event()
        self._start: float | None = None

    def read(self) -> Frame | None:
        """Waits until the next frame's time has come; None at the end."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._start is None:
            self._start = time.monotonic() - frame.timestamp
        due = self._start + frame.timestamp
        return None if self._closed.wait(max(due - time.monotonic(), 0.0)) else frame

    def close(self) -> None:
        """Ends it; a waiting `read` returns."""
        self._closed.set()
        self._source.close()
