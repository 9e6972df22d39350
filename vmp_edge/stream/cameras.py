"""`Cameras` and `Camera`: many cameras on one recogniser. A scheduler gives their windows fair turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from ..errors import UsageError, VmpError
from ..masking import masked, without_secrets
from ..recognizer import Prediction, Recognizer
from ..sources import Frame, Message, Paced, Pauses, Source, is_live_address, open_source, open_when_there
from .capture import CaptureRun
from .governor import Decision
from .options import StreamOptions
from .statistics import Statistics
from .stream import Stream
from .turns import Turns

State = Literal["stopped", "opening", "running", "lost", "ended", "failed"]

_JOIN_TIMEOUT = 0.8  # seconds that `stop` waits for the capture threads; those whose camera hangs are left behind


class Camera:
    """One of several cameras. `Cameras` makes it.

    Attributes:
        index: Number of the camera, counted from 0.
        source: The source's description, as for `open_source`.
        name: The source as it may be shown, without a password.
        stream: Frame ring, windows and smoothing of this camera.
        state: `opening` until the first frame, also while a camera that is not there yet is tried again, `running`,
            `lost` while a camera that vanished is tried again, `ended` when a file is over, `failed`, or `stopped`.
        message: The camera's last message: why it failed, is not there or was lost, or that it is back. Empty before
            the first one.
        error: The error that it failed with, if it is `failed`.
        frame: The newest frame.
    """

    def __init__(self, index: int, source: str, stream: Stream) -> None:
        self.index = index
        self.source = source
        self.name = masked(source)
        self.stream = stream
        self.state: State = "stopped"
        self.message = ""
        self.error: Exception | None = None
        self.frame: Frame | None = None
        self._run: CaptureRun | None = None

    @property
    def active(self) -> bool:
        """True if frames come, or may come again without a new start."""
        return self.state in ("opening", "running", "lost")

    @property
    def latest(self) -> Prediction | None:
        """The newest result since the camera was started or came back."""
        return self.stream.latest

    def statistics(self) -> Statistics:
        """Return how the camera's stream is doing. The numbers count on when the camera is stopped and started."""
        return self.stream.statistics()


class Cameras:
    """Recognises several cameras with one recogniser, whose weights they share.

    Every camera has a capture thread, which takes its frames as they come. One scheduler thread recognises: whenever
    the engine is free, the next camera in turn that has a window due gets its newest window recognised. So a camera
    waits for at most one window of each other camera, however fast the others are, and frames that are too many are
    dropped camera by camera. A camera that fails or is lost does not disturb the others.

    The callbacks are called in those threads and should return at once.

    Args:
        recognizer: Recognises the windows. The caller closes it, after this object.
        sources: One or more sources, as for `open_source`. A file is played at its own pace.
        options: The options of every camera's stream: `StreamOptions`, or the hop alone. Each camera has a motion gate
            and a governor of its own. A budget's latency is that of the window itself, without waiting for the
            camera's turn; its share of the CPU is that of all cameras together.
        loop: Play a file again when it is over.
        patient: Whether a camera, URL or pipeline that cannot be opened at the start is tried again until it is there.
            A device is often up before its cameras. A wrong address, such as a file that does not exist, is reported
            at once in any case. If not, such a camera fails at once, too.
        pauses: The pauses before a camera that is not there, or was lost, is tried again. None takes the usual ones.
        on_prediction: Called with each result, in the scheduler's thread.
        on_frame: Called with each frame, in the camera's capture thread, after `Camera.frame` was set.
        on_message: Called with what the user should know: a camera failed, vanished or is back. In any thread.
        opener: Opens a source. None takes `open_source`.
        variants: Recognisers for the governors' levels, by name from the dearest to the cheapest. The caller closes
            them.
        on_decision: Called with each decision of a camera's governor, in the scheduler's thread.
        changes: Fields of `StreamOptions` by name, which override those of `options`.

    Raises:
        UsageError: There is no source, or an option is out of range.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        sources: Sequence[str],
        options: StreamOptions | int | None = None,
        *,
        loop: bool = False,
        patient: bool = True,
        pauses: Pauses | None = None,
        on_prediction: Callable[[Camera, Prediction], None] | None = None,
        on_frame: Callable[[Camera, Frame], None] | None = None,
        on_message: Callable[[Camera, str], None] | None = None,
        opener: Callable[[str, Message], Source] | None = None,
        variants: Mapping[str, Recognizer] | None = None,
        on_decision: Callable[[Camera, Decision], None] | None = None,
        **changes: Any,
    ) -> None:
        if not sources:
            raise UsageError("give at least one source")
        self.recognizer = recognizer
        self.options = StreamOptions.merge(options, changes)
        self._on_decision = on_decision
        self._loop = loop
        self._patient = patient
        self._pauses = pauses or Pauses()
        self._on_prediction = on_prediction
        self._on_frame = on_frame
        self._on_message = on_message
        self._opener = opener
        self._cameras = [self._make(index, source, variants) for index, source in enumerate(sources)]
        self._turns = Turns(len(self._cameras))
        self._changing = threading.RLock()  # one start or stop at a time
        self._scheduler: threading.Thread | None = None
        self._closed = False
        self._failure: BaseException | None = None

    def _make(self, index: int, source: str, variants: Mapping[str, Recognizer] | None) -> Camera:
        def on_decision(decision: Decision) -> None:
            if self._on_decision is not None:
                self._on_decision(self._cameras[index], decision)

        stream = Stream(self.recognizer, self.options, bgr=True, variants=variants, on_decision=on_decision)
        return Camera(index, source, stream)

    def __len__(self) -> int:
        return len(self._cameras)

    def __getitem__(self, index: int) -> Camera:
        return self._cameras[index]

    def __iter__(self) -> Iterator[Camera]:
        return iter(self._cameras)

    def start(self, index: int | None = None) -> None:
        """Start a camera, or all of them. An active camera goes on as it is. Returns before the source is open.

        Args:
            index: Number of the camera. None starts all.

        Raises:
            UsageError: There is no such camera, or this object is closed.
            BundleError: The engine failed, and no camera can give results any more.
        """
        self.check()
        with self._changing:
            if self._closed:
                raise UsageError("these cameras are closed: make them again")
            for camera in self._select(index):
                if not camera.active:
                    self._start(camera)
            if self._scheduler is None:
                self._scheduler = threading.Thread(target=self._schedule, name="vmp-edge scheduler", daemon=True)
                self._scheduler.start()

    def stop(self, index: int | None = None) -> None:
        """Stop a camera, or all of them, and wait until the source is closed (or for 0.8 s, if it hangs).

        Args:
            index: Number of the camera. None stops all.

        Raises:
            UsageError: There is no such camera.
        """
        with self._changing:
            cameras = self._select(index)
            runs = [camera._run for camera in cameras if camera._run is not None]
            for run in runs:
                run.stop()
            deadline = time.monotonic() + _JOIN_TIMEOUT
            for run in runs:
                run.thread.join(max(deadline - time.monotonic(), 0.0))
            for camera in cameras:
                camera.state = "stopped" if camera.active else camera.state

    def check(self) -> None:
        """Raise the error that recognising failed with, if it failed. No camera gives results any more then.

        Raises:
            BundleError: The engine failed.
        """
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop all cameras and the scheduler. Raises the same errors as `check`."""
        with self._changing:
            self._closed = True
            self.stop()
            self._turns.close()
        if self._scheduler is not None:
            self._scheduler.join()
        self.check()

    def __enter__(self) -> Cameras:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select(self, index: int | None) -> list[Camera]:
        if index is None:
            return self._cameras
        if not 0 <= index < len(self._cameras):
            raise UsageError(f"there is no camera {index}: they are numbered 0 to {len(self._cameras) - 1}")
        return [self._cameras[index]]

    def _start(self, camera: Camera) -> None:
        camera.state, camera.message, camera.error = "opening", "", None
        camera.stream.reset()
        camera._run = CaptureRun(f"vmp-edge camera {camera.index}", lambda run: self._capture(camera, run))
        camera._run.thread.start()

    def _capture(self, camera: Camera, run: CaptureRun) -> None:
        try:
            while self._play(camera, run) and self._loop and not run.stopped:
                camera.stream.reset()
            self._settle(camera, run, "ended")
        except Exception as error:  # whatever it is, the other cameras go on
            text = str(error) if isinstance(error, VmpError) else f"{type(error).__name__}: {error}"
            if not run.stopped:
                camera.error = error
            self._settle(camera, run, "failed", text)

    def _play(self, camera: Camera, run: CaptureRun) -> bool:
        """Take a source's frames to its end. Return True if the source is a file, which can be played again."""
        source = self._open(camera, run)
        repeatable = not source.live
        if repeatable:
            source = Paced(source)
        run.hold(source)
        try:
            while (frame := source.read()) is not None and not run.stopped:
                self._take(camera, frame)
        finally:
            source.close()
        return repeatable

    def _open(self, camera: Camera, run: CaptureRun) -> Source:
        """Open a camera's source. If this object is patient, wait until the camera is there."""

        def tell(text: str) -> None:
            self._settle(camera, run, "lost", text)

        def opener() -> Source:
            if self._opener is not None:
                return self._opener(camera.source, tell)
            return open_source(camera.source, tell, pauses=self._pauses, cancelled=run.cancelled)

        if self._patient and is_live_address(camera.source):
            return open_when_there(opener, camera.name, tell, self._pauses, run.cancelled)
        return opener()

    def _take(self, camera: Camera, frame: Frame) -> None:
        if frame.restarted:
            camera.stream.reset()
        camera.state = "running"
        camera.frame = frame
        if camera.stream.add(frame.image, frame.timestamp):
            self._turns.ask(camera.index)
        if self._on_frame is not None:
            self._on_frame(camera, frame)

    def _settle(self, camera: Camera, run: CaptureRun, state: State, text: str = "") -> None:
        """Set a camera's new state and message, unless it was stopped: nobody wants to hear of a stopped source."""
        if run.stopped:
            return
        if state != "lost" or camera.state != "opening":
            camera.state = state
        if text:
            text = without_secrets(text, camera.source)
            camera.message = text
            if self._on_message is not None:
                self._on_message(camera, text)

    def _schedule(self) -> None:
        try:
            while (index := self._turns.next()) is not None:
                camera = self._cameras[index]
                prediction = camera.stream.recognise()
                if prediction is not None and self._on_prediction is not None:
                    self._on_prediction(camera, prediction)
        except BaseException as error:  # `check` raises it
            self._failure = error
            for camera in self._cameras:
                if camera._run is not None and camera.active:
                    camera._run.stop()
                    camera.state, camera.message = "failed", str(error)
